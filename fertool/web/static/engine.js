// Detector and model behind one call: from a frame to labeled faces.

import { cropFace } from './alignment.js';
import { readFile } from './assets.js';
import { Classifier } from './classifier.js';
import { Detector } from './detector.js';

const RUNTIME_MODULE = './onnxruntime-web.mjs';

export class Engine {
  constructor(detector, classifier, settings) {
    this.detector = detector;
    this.classifier = classifier;
    this.settings = settings;
  }

  /** Faces of a frame from left to right, each with box, landmarks, crop, probabilities, label. */
  async analyze(frame, { detectSize, fast }) {
    const faces = await this.detector.detect(frame, detectSize, fast);
    faces.sort((a, b) => a.box[0] - b.box[0]);
    const { classifier } = this.settings;
    for (const face of faces) face.crop = cropFace(frame, face.landmarks, classifier);
    const probabilities = faces.length
      ? await this.classifier.classify(faces.map((face) => face.crop))
      : [];
    faces.forEach((face, i) => {
      face.probabilities = probabilities[i];
    });
    return faces;
  }

  /** Name each face by its most probable class, or as unsure below the least confidence. */
  label(faces) {
    for (const face of faces) {
      face.confidence = face.probabilities.reduce((a, b) => Math.max(a, b));
      face.isSure = face.confidence >= this.settings.min_confidence;
      const best = face.probabilities.indexOf(face.confidence);
      face.label = face.isSure ? this.settings.classifier.classes[best] : 'unsure';
    }
  }
}

/** Unpack the runtime and open both networks; takes a second. */
export async function loadEngine(settings) {
  const [binary, detector, model] = await Promise.all(
    ['onnxruntime-web.wasm.gz', 'detector.onnx.gz', 'model.onnx.gz'].map(readFile),
  );
  // A single page has run the runtime's script already; its policy lets nothing else in.
  const runtime = globalThis.onnxruntime ?? (await import(RUNTIME_MODULE));
  runtime.env.wasm.wasmBinary = binary;
  // More threads need headers that a file and most hosts do not have, and gain nothing here.
  runtime.env.wasm.numThreads = 1;
  const options = { executionProviders: ['wasm'], graphOptimizationLevel: 'all' };
  const open = (bytes) => runtime.InferenceSession.create(bytes, options);
  return new Engine(
    new Detector(runtime, await open(detector), settings.detector),
    new Classifier(runtime, await open(model), settings.classifier),
    settings,
  );
}
