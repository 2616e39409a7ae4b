// YuNet: faces and five landmarks of each. The same steps as fertool/faces in Python.

import { roundHalfEven } from './resampling.js';

const LANDMARKS = 5;

export class Detector {
  /** `settings` has the constants that Python uses; see `DetectorSettings` in fertool/web. */
  constructor(runtime, session, settings) {
    this.runtime = runtime;
    this.session = session;
    this.settings = settings;
    this.input = new Float32Array(0);
  }

  /** Faces of a frame in its own pixels, the surest first; `fast` is for video. */
  async detect(frame, detectSize, fast) {
    for (const [width, height] of this.sizes(frame, detectSize)) {
      const pixels = frame.scaled(width, height, fast);
      const found = await this.detectAt(pixels, width, height);
      if (found.length) {
        return found.map((face) => scaleFace(face, frame.width / width, frame.height / height));
      }
    }
    return [];
  }

  /** The sizes at which a picture is looked at: a face that fills it is too large at the first. */
  sizes(frame, detectSize) {
    const sizes = [this.firstSize(frame, detectSize)];
    for (const side of this.settings.second_looks) {
      const again = scaledSize(frame, side / Math.max(frame.width, frame.height));
      const isKnown = sizes.some(([w, h]) => w === again[0] && h === again[1]);
      // A video has no time for a larger look than its first.
      if (!isKnown && side < detectSize) sizes.push(again);
    }
    return sizes;
  }

  firstSize(frame, detectSize) {
    const { smallest_side: smallest, largest_area: largest } = this.settings;
    const long = Math.max(frame.width, frame.height);
    const short = Math.min(frame.width, frame.height);
    if (long < smallest) return scaledSize(frame, smallest / long);
    let scale = Math.min(1, detectSize / long);
    // A panorama that is reduced to the long side alone has a height of a few pixels.
    scale = Math.max(scale, Math.min(1, smallest / short));
    const largestScale = Math.sqrt(largest / (frame.width * frame.height));
    return scaledSize(frame, Math.min(scale, largestScale));
  }

  async detectAt(rgba, width, height) {
    const multiple = this.settings.pad_multiple;
    const paddedWidth = Math.ceil(width / multiple) * multiple;
    const paddedHeight = Math.ceil(height / multiple) * multiple;
    const input = this.pack(rgba, width, height, paddedWidth, paddedHeight);
    const tensor = new this.runtime.Tensor('float32', input, [1, 3, paddedHeight, paddedWidth]);
    const outputs = await this.session.run({ [this.session.inputNames[0]]: tensor });
    const faces = this.decode(outputs, paddedWidth);
    for (const output of Object.values(outputs)) output.dispose();
    return withoutOverlaps(faces, this.settings.largest_overlap);
  }

  /** Blue, green, red from 0 to 255; zeros at the right and at the bottom. */
  pack(rgba, width, height, paddedWidth, paddedHeight) {
    const area = paddedWidth * paddedHeight;
    if (this.input.length !== 3 * area) this.input = new Float32Array(3 * area);
    const { input } = this;
    input.fill(0);
    for (let y = 0, from = 0; y < height; y++) {
      for (let to = y * paddedWidth; to < y * paddedWidth + width; to++, from += 4) {
        input[to] = rgba[from + 2];
        input[area + to] = rgba[from + 1];
        input[2 * area + to] = rgba[from];
      }
    }
    return input;
  }

  decode(outputs, width) {
    const faces = [];
    for (const stride of this.settings.strides) {
      const classes = outputs[`cls_${stride}`].data;
      const objects = outputs[`obj_${stride}`].data;
      const boxes = outputs[`bbox_${stride}`].data;
      const points = outputs[`kps_${stride}`].data;
      const columns = width / stride;
      for (let i = 0; i < classes.length; i++) {
        const score = Math.sqrt(toUnit(classes[i]) * toUnit(objects[i]));
        if (score < this.settings.min_score) continue;
        const x = i % columns;
        const y = Math.floor(i / columns);
        faces.push({
          score,
          box: anchoredBox(boxes, 4 * i, x, y, stride),
          landmarks: anchoredPoints(points, 2 * LANDMARKS * i, x, y, stride),
        });
      }
    }
    return faces;
  }
}

function toUnit(value) {
  return Math.min(1, Math.max(0, value));
}

function anchoredBox(boxes, at, x, y, stride) {
  const width = Math.exp(boxes[at + 2]) * stride;
  const height = Math.exp(boxes[at + 3]) * stride;
  const left = (x + boxes[at]) * stride - width / 2;
  const top = (y + boxes[at + 1]) * stride - height / 2;
  return [left, top, width, height];
}

function anchoredPoints(points, at, x, y, stride) {
  const placed = [];
  for (let k = at; k < at + 2 * LANDMARKS; k += 2) {
    placed.push([(points[k] + x) * stride, (points[k + 1] + y) * stride]);
  }
  return placed;
}

function withoutOverlaps(faces, largestOverlap) {
  const kept = [];
  for (const face of [...faces].sort((a, b) => b.score - a.score)) {
    const isNew = kept.every((other) => overlap(other.box, face.box) < largestOverlap);
    if (isNew) kept.push(face);
  }
  return kept;
}

/** Intersection over union of two boxes. */
export function overlap([ax, ay, aw, ah], [bx, by, bw, bh]) {
  const width = Math.min(ax + aw, bx + bw) - Math.max(ax, bx);
  const height = Math.min(ay + ah, by + bh) - Math.max(ay, by);
  if (width <= 0 || height <= 0) return 0;
  return (width * height) / (aw * ah + bw * bh - width * height);
}

function scaledSize(frame, scale) {
  const width = Math.max(1, roundHalfEven(frame.width * scale));
  const height = Math.max(1, roundHalfEven(frame.height * scale));
  return [width, height];
}

function scaleFace({ score, box, landmarks }, scaleX, scaleY) {
  const [x, y, width, height] = box;
  return {
    score,
    box: [x * scaleX, y * scaleY, width * scaleX, height * scaleY],
    landmarks: landmarks.map(([px, py]) => [px * scaleX, py * scaleY]),
  };
}
