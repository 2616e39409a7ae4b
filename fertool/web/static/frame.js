// One picture whose pixels can be read: a photo, or what the camera shows at one moment.

import { resize } from './resampling.js';

export class Frame {
  constructor() {
    this.canvas = document.createElement('canvas');
    this.pen = this.canvas.getContext('2d', { willReadFrequently: true });
    this.small = document.createElement('canvas');
    this.smallPen = this.small.getContext('2d', { willReadFrequently: true });
  }

  get width() {
    return this.canvas.width;
  }

  get height() {
    return this.canvas.height;
  }

  /** Take a copy of a picture: a video goes on while its frame is looked at. */
  take(source, width, height) {
    resizeCanvas(this.canvas, width, height);
    // Transparent pixels are laid on gray, as the readers of data sets do.
    this.pen.fillStyle = '#808080';
    this.pen.fillRect(0, 0, width, height);
    this.pen.drawImage(source, 0, 0, width, height);
  }

  /** RGBA pixels of a region, which must lie inside of the picture. */
  region(left, top, width, height) {
    return this.pen.getImageData(left, top, width, height).data;
  }

  /** RGBA pixels of the picture at another size: by the browser if `fast`, else as in Python. */
  scaled(width, height, fast) {
    if (!fast) {
      const pixels = this.region(0, 0, this.width, this.height);
      return resize(pixels, this.width, this.height, width, height);
    }
    resizeCanvas(this.small, width, height);
    this.smallPen.imageSmoothingQuality = 'high';
    this.smallPen.drawImage(this.canvas, 0, 0, width, height);
    return this.smallPen.getImageData(0, 0, width, height).data;
  }
}

/** Give a canvas a size; setting the same one would clear it and cost time. */
export function resizeCanvas(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}
