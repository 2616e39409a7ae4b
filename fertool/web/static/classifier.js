// The model: crops of faces in, probabilities out.

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
    const { batch } = this.settings;
    // Of a fixed batch size a graph takes no other number of images.
    const step = batch ?? Math.max(1, crops.length);
    const probabilities = [];
    for (let start = 0; start < crops.length; start += step) {
      const some = crops.slice(start, start + step);
      const logits = await this.run(some, step);
      const count = this.settings.classes.length;
      some.forEach((_, i) => {
        const own = logits.subarray(i * count, (i + 1) * count);
        probabilities.push(softmax(own, this.settings.temperature));
      });
    }
    return probabilities;
  }

  async run(crops, batch) {
    const { channels, size, pixel_type: type } = this.settings;
    const pixels = channels * size * size;
    const input = type === 'uint8'
      ? new Uint8Array(batch * pixels)
      : new Float32Array(batch * pixels);
    crops.forEach((crop, i) => {
      input.set(type === 'uint8' ? crop : this.normalized(crop), i * pixels);
    });
    const tensor = new this.runtime.Tensor(type, input, [batch, channels, size, size]);
    const outputs = await this.session.run({ [this.inputName]: tensor }, [this.outputName]);
    return Float32Array.from(outputs[this.outputName].data);
  }

  /** (pixel in its range - mean) / std: files of fertool do this themselves. */
  normalized(crop) {
    const { channels, pixel_range: range, mean, std } = this.settings;
    const area = crop.length / channels;
    const [scale, offset] = { '0..1': [1 / 255, 0], '-1..1': [2 / 255, -1], '0..255': [1, 0] }[range];
    return Float32Array.from(crop, (pixel, i) => {
      const channel = Math.floor(i / area);
      const own = mean.length === 1 ? 0 : channel;
      const ownStd = std.length === 1 ? 0 : channel;
      return (pixel * scale + offset - mean[own]) / std[ownStd];
    });
  }
}

/** Probabilities of logits that are divided by the temperature of the calibration. */
export function softmax(logits, temperature) {
  const highest = logits.reduce((a, b) => Math.max(a, b));
  const parts = Array.from(logits, (logit) => Math.exp((logit - highest) / temperature));
  const sum = parts.reduce((total, part) => total + part, 0);
  return parts.map((part) => part / sum);
}
