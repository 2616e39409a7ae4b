// The model: crops of faces in, probabilities out.

const PROBABILITY_SUM = 1e-3;
// Scale and offset of a pixel from 0 to 255.
const RANGES = { '0..1': [1 / 255, 0], '-1..1': [2 / 255, -1], '0..255': [1, 0] };

export class Classifier {
  /** `settings` is the model's input contract; see `ClassifierSettings` in fertool/web. */
  constructor(runtime, session, settings) {
    this.runtime = runtime;
    this.session = session;
    this.settings = settings;
    this.inputName = session.inputNames[0];
    this.outputName = settings.output ?? session.outputNames[0];
  }

  /** The probabilities of each crop, in the order of the classes. */
  async classify(crops) {
    const probabilities = [];
    // Each alone, as in Python, so that they do not depend on what else is in the picture.
    for (const crop of crops) probabilities.push(this.toProbabilities(await this.run(crop)));
    return probabilities;
  }

  async run(crop) {
    const { channels, size, pixel_type: type } = this.settings;
    // A graph of a fixed batch size takes no other number of images.
    const batch = this.settings.batch ?? 1;
    const planes = type === 'uint8' ? crop : this.normalized(crop);
    const pixels = this.settings.channels_last ? interleaved(planes, channels) : planes;
    const input = new pixels.constructor(batch * pixels.length);
    for (let i = 0; i < batch; i++) input.set(pixels, i * pixels.length);
    const axes = this.settings.channels_last ? [size, size, channels] : [channels, size, size];
    const tensor = new this.runtime.Tensor(type, input, [batch, ...axes]);
    const outputs = await this.session.run({ [this.inputName]: tensor }, [this.outputName]);
    return Array.from(outputs[this.outputName].data.subarray(0, this.settings.classes.length));
  }

  toProbabilities(outputs) {
    // Files of other programs may end in a softmax, and another one would level them.
    const isDone = this.settings.may_be_probabilities && areProbabilities(outputs);
    return isDone ? outputs : softmax(outputs, this.settings.temperature);
  }

  /** (pixel in its range - mean) / std: files of fertool do this themselves. */
  normalized(crop) {
    const { channels, pixel_range: range, mean, std } = this.settings;
    const area = crop.length / channels;
    const [scale, offset] = RANGES[range];
    return Float32Array.from(crop, (pixel, i) => {
      const channel = Math.floor(i / area);
      const own = mean.length === 1 ? 0 : channel;
      const ownStd = std.length === 1 ? 0 : channel;
      return (pixel * scale + offset - mean[own]) / std[ownStd];
    });
  }
}

/** The values of a few planes, those of a pixel side by side. */
function interleaved(planes, channels) {
  const area = planes.length / channels;
  return planes.map((_, i) => planes[(i % channels) * area + Math.floor(i / channels)]);
}

function areProbabilities(outputs) {
  const sum = outputs.reduce((total, value) => total + value, 0);
  return outputs.every((value) => value >= 0) && Math.abs(sum - 1) <= PROBABILITY_SUM;
}

/** Probabilities of logits that are divided by the temperature of the calibration. */
export function softmax(logits, temperature) {
  const highest = logits.reduce((a, b) => Math.max(a, b));
  const parts = logits.map((logit) => Math.exp((logit - highest) / temperature));
  const sum = parts.reduce((total, part) => total + part, 0);
  return parts.map((part) => part / sum);
}
