// The list of faces beside the picture: a card each, with a bar for each class.

import { percent } from './text.js';

const MOST_BARS = 10;

export class Results {
  /** `settings` are those of the classifier; `list` is the <ol> that holds the cards. */
  constructor(list, settings) {
    this.list = list;
    this.settings = settings;
    this.cards = new Map();
  }

  /** Show these faces; cards of the same number are changed, not made again. */
  show(faces) {
    const numbers = new Set(faces.map((face) => face.number));
    for (const [number, card] of this.cards) {
      if (numbers.has(number)) continue;
      card.element.remove();
      this.cards.delete(number);
    }
    for (const face of faces) {
      if (!this.cards.has(face.number)) this.add(face.number);
      this.cards.get(face.number).update(face, faces.length);
    }
  }

  add(number) {
    // With several faces the first is open, so that the page stays short.
    const card = new Card(number, this.settings, this.cards.size === 0);
    this.cards.set(number, card);
    this.list.append(card.element);
  }
}

class Card {
  constructor(number, settings, isOpen) {
    this.settings = settings;
    this.element = make('li', 'face');
    const details = make('details', '');
    details.open = isOpen;
    const summary = make('summary', '');
    this.thumbnail = make('canvas', 'crop');
    this.thumbnail.setAttribute('aria-hidden', 'true');
    this.number = make('span', 'number', `Face ${number}`);
    this.label = make('strong', 'label');
    this.confidence = make('span', 'confidence');
    const names = make('span', 'names');
    names.append(this.number, this.label);
    summary.append(this.thumbnail, names, this.confidence);
    this.bars = make('ul', 'bars');
    details.append(summary, this.bars);
    this.element.append(details);
    this.rows = [];
    const rows = Math.min(settings.classes.length, MOST_BARS);
    for (let i = 0; i < rows; i++) this.addRow();
  }

  addRow() {
    const row = make('li', 'bar');
    const name = make('span', 'name');
    const track = make('span', 'track');
    const fill = make('span', 'fill');
    const value = make('span', 'value');
    track.append(fill);
    row.append(name, track, value);
    this.bars.append(row);
    this.rows.push({ row, name, fill, value });
  }

  update(face, count) {
    this.number.hidden = count === 1;
    setText(this.label, face.label);
    setText(this.confidence, percent(face.confidence));
    this.element.classList.toggle('unsure', !face.isSure);
    this.drawCrop(face.crop);
    const order = shownClasses(face.probabilities);
    order.forEach((index, i) => {
      const { row, name, fill, value } = this.rows[i];
      const probability = face.probabilities[index];
      setText(name, this.settings.classes[index]);
      setText(value, percent(probability));
      fill.style.setProperty('--share', probability.toFixed(3));
      row.classList.toggle('best', probability === face.confidence);
    });
  }

  /** What the model sees of the face. */
  drawCrop(crop) {
    const { size, channels } = this.settings;
    if (this.thumbnail.width !== size) {
      this.thumbnail.width = size;
      this.thumbnail.height = size;
    }
    const pen = this.thumbnail.getContext('2d');
    const image = pen.createImageData(size, size);
    const area = size * size;
    for (let i = 0; i < area; i++) {
      for (let channel = 0; channel < 3; channel++) {
        image.data[4 * i + channel] = crop[channels === 1 ? i : channel * area + i];
      }
      image.data[4 * i + 3] = 255;
    }
    pen.putImageData(image, 0, 0);
  }
}

/** The classes that have a bar: all in their own order, or the most probable of many. */
function shownClasses(probabilities) {
  const indices = probabilities.map((_, i) => i);
  if (probabilities.length <= MOST_BARS) return indices;
  return indices.sort((a, b) => probabilities[b] - probabilities[a]).slice(0, MOST_BARS);
}

function make(tag, name, text = '') {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text) element.textContent = text;
  return element;
}

// Thirty times a second: what is the same costs nothing.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
