// Results in words.

/** A probability as text. */
export function percent(probability) {
  return `${Math.round(100 * probability)} %`;
}

/** One sentence about the faces of a picture, for those who hear the page. */
export function describe(faces) {
  if (faces.length === 0) return 'No face.';
  const named = faces.map((face) => `${face.label}, ${percent(face.confidence)}`);
  if (faces.length === 1) return `One face: ${named[0]}.`;
  return `${faces.length} faces: ${named.join('; ')}.`;
}
