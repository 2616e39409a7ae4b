// Pictures at other sizes, with the arithmetic that fertool has in Python (Pillow's).

/** Round as Python does: halves to the even neighbor. */
export function roundHalfEven(value) {
  const below = Math.floor(value);
  const fraction = value - below;
  if (fraction !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/**
 * Resize RGBA pixels by a triangle filter that grows with the reduction: areas are averaged.
 * Browsers differ in how they reduce a picture; boxes would differ with them by some pixels.
 */
export function resize(rgba, width, height, newWidth, newHeight) {
  if (newWidth === width && newHeight === height) return rgba;
  const wide = new Uint8ClampedArray(newWidth * height * 4);
  const columns = weights(width, newWidth);
  for (let y = 0; y < height; y++) {
    filterLine(rgba, y * width * 4, 4, wide, y * newWidth * 4, 4, columns);
  }
  const resized = new Uint8ClampedArray(newWidth * newHeight * 4);
  const rows = weights(height, newHeight);
  for (let x = 0; x < newWidth; x++) {
    filterLine(wide, x * 4, newWidth * 4, resized, x * 4, newWidth * 4, rows);
  }
  return resized;
}

/** For each new pixel: the first old one that counts, and the weights of it and those after it. */
function weights(oldSize, newSize) {
  const scale = oldSize / newSize;
  const reach = Math.max(scale, 1);
  const all = [];
  for (let i = 0; i < newSize; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - reach + 0.5));
    const end = Math.min(oldSize, Math.floor(center + reach + 0.5));
    const own = new Float64Array(end - first);
    let sum = 0;
    for (let j = first; j < end; j++) {
      own[j - first] = Math.max(0, 1 - Math.abs(j + 0.5 - center) / reach);
      sum += own[j - first];
    }
    all.push({ first, own: own.map((weight) => weight / sum) });
  }
  return all;
}

function filterLine(source, start, step, target, targetStart, targetStep, columns) {
  for (let i = 0; i < columns.length; i++) {
    const { first, own } = columns[i];
    let red = 0;
    let green = 0;
    let blue = 0;
    let at = start + first * step;
    for (let j = 0; j < own.length; j++, at += step) {
      red += own[j] * source[at];
      green += own[j] * source[at + 1];
      blue += own[j] * source[at + 2];
    }
    const place = targetStart + i * targetStep;
    target[place] = red;
    target[place + 1] = green;
    target[place + 2] = blue;
    target[place + 3] = 255;
  }
}
