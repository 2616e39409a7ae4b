// The picture with its faces: four corners and a label each.

import { overlap } from './detector.js';
import { resizeCanvas } from './frame.js';
import { percent } from './text.js';

const CORNER = 0.24;
const LONGEST_CORNER_PX = 34;

export class Overlay {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext('2d');
  }

  /** Draw a frame and its faces; `mirrored` turns the picture, not the letters. */
  draw(frame, faces, { mirrored = false, numbered = false } = {}) {
    resizeCanvas(this.canvas, frame.width, frame.height);
    const { pen } = this;
    pen.save();
    if (mirrored) {
      pen.translate(frame.width, 0);
      pen.scale(-1, 1);
    }
    pen.drawImage(frame.canvas, 0, 0);
    pen.restore();
    // A pixel of the screen in those of the picture, so that lines look the same on each.
    const { clientWidth, clientHeight } = this.canvas;
    const unit = clientWidth
      ? Math.max(frame.width / clientWidth, frame.height / clientHeight)
      : 1;
    const labels = [];
    for (const face of faces) {
      const [x, y, width, height] = face.box;
      const box = [mirrored ? frame.width - x - width : x, y, width, height];
      this.drawCorners(box, unit);
      labels.push(this.placeLabel(labelText(face, numbered), box, unit, labels));
    }
    // Above all corners, those of neighbors too.
    for (const label of labels) this.drawLabel(label, unit);
  }

  drawCorners([x, y, width, height], unit) {
    const { pen } = this;
    const length = Math.min(CORNER * Math.min(width, height), LONGEST_CORNER_PX * unit);
    const radius = 0.45 * length;
    pen.beginPath();
    for (const [cx, cy, dx, dy] of [
      [x, y, 1, 1],
      [x + width, y, -1, 1],
      [x + width, y + height, -1, -1],
      [x, y + height, 1, -1],
    ]) {
      pen.moveTo(cx, cy + dy * length);
      pen.arcTo(cx, cy, cx + dx * length, cy, radius);
      pen.lineTo(cx + dx * length, cy);
    }
    pen.lineCap = 'round';
    pen.lineJoin = 'round';
    // Dark below light: to be seen on any picture.
    this.stroke('rgb(0 0 0 / 45%)', 5 * unit);
    this.stroke('#fff', 2.5 * unit);
  }

  stroke(color, width) {
    this.pen.strokeStyle = color;
    this.pen.lineWidth = width;
    this.pen.stroke();
  }

  /** Where a label goes: above its box, or below it where there is no room or another label. */
  placeLabel(text, [x, y, , height], unit, placed) {
    this.pen.font = `600 ${14 * unit}px system-ui, sans-serif`;
    const width = this.pen.measureText(text).width + 18 * unit;
    const tall = 26 * unit;
    const gap = 8 * unit;
    const left = Math.max(gap / 2, Math.min(x, this.canvas.width - width - gap / 2));
    const above = [left, y - tall - gap, width, tall];
    const isFree = above[1] >= 0 && placed.every((other) => overlap(other.place, above) === 0);
    const below = Math.min(y + height + gap, this.canvas.height - tall - gap / 2);
    return { text, place: isFree ? above : [left, below, width, tall] };
  }

  drawLabel({ text, place }, unit) {
    const { pen } = this;
    const [left, top, width, height] = place;
    pen.font = `600 ${14 * unit}px system-ui, sans-serif`;
    pen.textBaseline = 'middle';
    pen.beginPath();
    pen.roundRect(left, top, width, height, height / 2);
    pen.fillStyle = 'rgb(255 255 255 / 94%)';
    pen.fill();
    pen.fillStyle = '#16181b';
    pen.fillText(text, left + 9 * unit, top + height / 2 + 0.5 * unit);
  }
}

// Of several faces the numbers lead to the cards, which have the rest.
function labelText(face, numbered) {
  return numbered ? `${face.number}  ${face.label}` : `${face.label}  ${percent(face.confidence)}`;
}
