// Faces over time: numbers that stay, labels that do not flicker.

import { overlap } from './detector.js';

const LEAST_OVERLAP = 0.3;
const FORGET_AFTER_MS = 1000;

export class Tracks {
  /** `smoothMs` is the time constant of an average that weighs the past exponentially less. */
  constructor(smoothMs) {
    this.smoothMs = smoothMs;
    this.tracks = [];
    this.next = 1;
  }

  /** Give each face the number of its track and the average of its probabilities. */
  follow(faces, nowMs) {
    this.tracks = this.tracks.filter((track) => nowMs - track.seenMs < FORGET_AFTER_MS);
    const free = new Set(this.tracks);
    // The largest first, so that a passer-by takes no one's number.
    for (const face of [...faces].sort((a, b) => area(b.box) - area(a.box))) {
      let track = mostOverlapping(free, face.box);
      if (track) {
        free.delete(track);
        average(track, face, this.weightOfPast(nowMs - track.seenMs));
      } else {
        track = { number: this.next++, probabilities: face.probabilities };
        this.tracks.push(track);
      }
      track.box = face.box;
      track.seenMs = nowMs;
      face.track = track.number;
      face.probabilities = track.probabilities;
    }
  }

  weightOfPast(passedMs) {
    return this.smoothMs > 0 ? Math.exp(-passedMs / this.smoothMs) : 0;
  }
}

function mostOverlapping(tracks, box) {
  let best = null;
  let bestOverlap = LEAST_OVERLAP;
  for (const track of tracks) {
    const shared = overlap(track.box, box);
    if (shared > bestOverlap) {
      best = track;
      bestOverlap = shared;
    }
  }
  return best;
}

function average(track, face, weight) {
  track.probabilities = face.probabilities.map(
    (probability, i) => weight * track.probabilities[i] + (1 - weight) * probability,
  );
}

function area(box) {
  return box[2] * box[3];
}
