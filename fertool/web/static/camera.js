// The camera: on, off, the other one, and why not.

import { KnownError } from './messages.js';

const WIDTH = 640;
const HEIGHT = 480;
const KINDS = {
  NotAllowedError: 'refused',
  SecurityError: 'refused',
  NotFoundError: 'noCamera',
  OverconstrainedError: 'noCamera',
  NotReadableError: 'busyCamera',
  AbortError: 'busyCamera',
};

export class Camera {
  constructor() {
    this.video = document.createElement('video');
    this.video.muted = true;
    this.video.playsInline = true;
    this.stream = null;
    this.facing = 'user';
    /** Called when the camera ends by itself. */
    this.onLost = () => {};
    this.hasNewFrame = false;
    this.onFrame = () => {};
  }

  get isOn() {
    return this.stream !== null;
  }

  /** Whether the picture is shown as a mirror would, as people expect of the camera before them. */
  get isMirrored() {
    const facing = this.stream?.getVideoTracks()[0].getSettings().facingMode;
    return (facing ?? this.facing) === 'user';
  }

  /** Start it. Throws KnownError. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) throw new KnownError('insecure');
    this.stop();
    const video = {
      facingMode: this.facing,
      width: { ideal: WIDTH },
      height: { ideal: HEIGHT },
    };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      throw new KnownError(KINDS[error.name] ?? 'noCamera');
    }
    this.stream.getVideoTracks()[0].addEventListener('ended', () => {
      this.stop();
      this.onLost();
    });
    this.video.srcObject = this.stream;
    await this.video.play();
    this.watch();
  }

  /** Switch it off: its light goes out. */
  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }

  /** Start the camera on the other side of the device. */
  async flip() {
    this.facing = this.facing === 'user' ? 'environment' : 'user';
    await this.start();
  }

  /** Whether there is another camera; known only once one has been allowed. */
  async hasOther() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter((device) => device.kind === 'videoinput').length > 1;
  }

  /** Wait for a picture that has not been looked at; none if one came while the last one was. */
  async nextFrame() {
    if (!this.hasNewFrame) {
      await new Promise((resolve) => {
        this.onFrame = resolve;
      });
    }
    this.hasNewFrame = false;
  }

  /** Note each picture of the stream as it comes: a callback that is late waits for another one. */
  watch() {
    const { stream, video } = this;
    const note = () => {
      if (this.stream !== stream) return;
      this.hasNewFrame = true;
      this.onFrame();
      ask();
    };
    const ask = () => {
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(note);
      else requestAnimationFrame(note);
    };
    this.hasNewFrame = false;
    ask();
  }
}
