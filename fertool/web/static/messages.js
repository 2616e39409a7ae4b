// All that the page says when something is not as expected: what happened, and what to do.

export const MESSAGES = {
  noFace: {
    title: 'No face found',
    advice: 'Move closer, look towards the camera, or find more light.',
  },
  notPicture: {
    title: 'This file is not a picture',
    advice: 'Choose a photo: JPEG, PNG, WebP, GIF, AVIF or BMP.',
  },
  emptyFile: {
    title: 'This file is empty',
    advice: 'It may not have been downloaded yet. Open it once, then choose it again.',
  },
  damaged: {
    title: 'This picture is damaged',
    advice: 'Its end is missing, or its data is broken. Copy or download it again.',
  },
  tooLarge: {
    title: 'This picture is too large',
    advice: 'It has more than 100 megapixels. Save a smaller copy and choose that.',
  },
  otherFormat: {
    title: 'This browser cannot open this kind of picture',
    advice: 'Save it as JPEG or PNG, or use a browser of the device that took it.',
  },
  refused: {
    title: 'The camera was not allowed',
    advice: 'Allow it in the browser’s settings for this page and try again. Photos still work.',
  },
  noCamera: {
    title: 'No camera found',
    advice: 'Connect one, or choose a photo.',
  },
  busyCamera: {
    title: 'The camera is in use',
    advice: 'Close other programs that use it, then try again.',
  },
  lostCamera: {
    title: 'The camera stopped',
    advice: 'It was disconnected, or another program took it. Start it again.',
  },
  insecure: {
    title: 'The camera needs a secure page',
    advice: 'Open this page by https, from localhost, or as a file. Photos still work here.',
  },
  hidden: {
    title: 'The camera is off',
    advice: 'It was switched off while this page was out of sight.',
  },
  oldBrowser: {
    title: 'This browser cannot run the model',
    advice: 'Use Chrome or Edge 99, Firefox 113 or Safari 16.4, or a later version.',
  },
  failed: {
    title: 'Something went wrong',
    advice: 'Reload the page and try again.',
  },
};

/** An error that the page can say in words; `kind` is a key of MESSAGES. */
export class KnownError extends Error {
  constructor(kind) {
    super(MESSAGES[kind].title);
    this.kind = kind;
  }
}
