// The page: buttons, what is shown, and the loop over the camera's frames.

import { prepareAbout } from './about.js';
import { readSettings } from './assets.js';
import { Camera } from './camera.js';
import { loadEngine } from './engine.js';
import { Frame } from './frame.js';
import { KnownError, MESSAGES } from './messages.js';
import { keepOffline } from './offline.js';
import { Overlay } from './overlay.js';
import { openPicture } from './picture.js';
import { Results } from './results.js';
import { describe } from './text.js';
import { Tracks } from './tracking.js';

const ANNOUNCE_EVERY_MS = 2500;
const RATE_EVERY_MS = 1000;
const PARTS = ['welcome', 'loading', 'message', 'view'];

const element = (id) => document.getElementById(id);
const settings = readSettings();
const frame = new Frame();
const camera = new Camera();
const overlay = new Overlay(element('view'));
const results = new Results(element('faces'), settings.classifier);

let engine = null;
let run = 0;
let announcedMs = 0;

// --- what is shown

function showOnly(part) {
  for (const each of PARTS) element(each).hidden = each !== part;
  document.body.dataset.shows = part;
}

function showMessage(kind) {
  const { title, advice } = MESSAGES[kind];
  element('message-title').textContent = title;
  element('message-advice').textContent = advice;
  showOnly('message');
  showFaces([]);
  announce(`${title}. ${advice}`);
}

function showFaces(faces) {
  results.show(faces);
  element('no-faces').hidden = faces.length > 0;
}

/** A line over the picture: there is no face in it. */
function hint(kind) {
  element('hint').hidden = !kind;
  if (kind) element('hint').textContent = `${MESSAGES[kind].title}. ${MESSAGES[kind].advice}`;
}

function announce(text) {
  const status = element('status');
  if (status.textContent !== text) status.textContent = text;
}

function showControls() {
  const isOn = camera.isOn;
  element('camera-name').textContent = isOn ? 'Stop' : 'Camera';
  element('camera').setAttribute('aria-pressed', String(isOn));
  document.body.classList.toggle('live', isOn);
  element('rate').hidden = !isOn;
  if (!isOn) element('flip').hidden = true;
}

/** What pages around this one, and tests, may listen to: the faces of each picture. */
function publish(source, faces, ms) {
  const detail = {
    source,
    width: frame.width,
    height: frame.height,
    ms,
    faces: faces.map(({ box, score, landmarks, label, confidence, probabilities, number }) => ({
      box, score, landmarks, label, confidence, probabilities, number,
    })),
  };
  document.dispatchEvent(new CustomEvent('fertool:faces', { detail }));
}

// --- photos

async function showPhoto(file) {
  const own = beginRun();
  showOnly('loading');
  try {
    const bitmap = await openPicture(file);
    await isReady;
    if (own !== run) return;
    frame.take(bitmap, bitmap.width, bitmap.height);
    bitmap.close();
    const start = performance.now();
    const faces = await engine.analyze(frame, { detectSize: settings.detector.photo_size });
    if (own !== run) return;
    faces.forEach((face, i) => {
      face.number = i + 1;
    });
    engine.label(faces);
    showOnly('view');
    overlay.draw(frame, faces, { numbered: faces.length > 1 });
    showFaces(faces);
    hint(faces.length ? null : 'noFace');
    describeView(faces);
    announce(describe(faces));
    publish('photo', faces, performance.now() - start);
  } catch (error) {
    if (own === run) fail(error);
  }
}

function describeView(faces) {
  element('view').setAttribute('aria-label', describe(faces));
}

// --- camera

async function startCamera(open) {
  const own = beginRun();
  showOnly('loading');
  try {
    await open();
    if (own !== run) return camera.stop();
    await isReady;
    if (own !== run) return undefined;
    showControls();
    element('flip').hidden = !(await camera.hasOther());
    await follow(own);
  } catch (error) {
    if (own === run) fail(error);
  }
  return undefined;
}

/** Look at one frame after the other until another run begins. */
async function follow(own) {
  const tracks = new Tracks(1000 * settings.smooth_s);
  const rate = new Rate(element('rate-value'));
  while (own === run && camera.isOn) {
    await camera.nextFrame();
    const { video } = camera;
    if (own !== run || !camera.isOn) return;
    if (!video.videoWidth) continue;
    const start = performance.now();
    frame.take(video, video.videoWidth, video.videoHeight);
    const detectSize = settings.detector.video_size;
    const faces = await engine.analyze(frame, { detectSize, fast: true });
    if (own !== run) return;
    tracks.follow(faces, start);
    for (const face of faces) face.number = face.track;
    engine.label(faces);
    showOnly('view');
    overlay.draw(frame, faces, { mirrored: camera.isMirrored, numbered: faces.length > 1 });
    showFaces(faces);
    hint(faces.length ? null : 'noFace');
    describeNowAndThen(faces);
    rate.count();
    publish('camera', faces, performance.now() - start);
  }
}

// A voice that speaks thirty times a second tells nothing.
function describeNowAndThen(faces) {
  const now = performance.now();
  if (now - announcedMs < ANNOUNCE_EVERY_MS) return;
  announcedMs = now;
  describeView(faces);
  announce(describe(faces));
}

/** Counts frames and shows how many there are a second. */
class Rate {
  constructor(place) {
    this.place = place;
    this.frames = 0;
    this.startMs = performance.now();
  }

  count() {
    this.frames += 1;
    const passedMs = performance.now() - this.startMs;
    if (passedMs < RATE_EVERY_MS) return;
    this.place.textContent = Math.round((1000 * this.frames) / passedMs);
    this.frames = 0;
    this.startMs = performance.now();
  }
}

// --- runs: a photo or a camera that is on; a new one ends the one before

function beginRun() {
  run += 1;
  camera.stop();
  hint(null);
  showControls();
  return run;
}

function fail(error) {
  camera.stop();
  showControls();
  hint(null);
  if (!(error instanceof KnownError)) console.error(error);
  showMessage(error instanceof KnownError ? error.kind : 'failed');
}

function stopCamera() {
  beginRun();
  // The last frame stays, unless there has been none.
  if (document.body.dataset.shows === 'loading') showOnly('welcome');
}

// --- input

function pick(files) {
  const [file] = files ?? [];
  if (file) showPhoto(file);
}

function listen() {
  element('photo').addEventListener('change', (event) => {
    pick(event.target.files);
    // The same file may be chosen again.
    event.target.value = '';
  });
  element('camera').addEventListener('click', () => {
    if (camera.isOn) stopCamera();
    else startCamera(() => camera.start());
  });
  element('flip').addEventListener('click', () => startCamera(() => camera.flip()));
  camera.onLost = () => {
    beginRun();
    showMessage('lostCamera');
  };
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden || !camera.isOn) return;
    beginRun();
    showMessage('hidden');
  });
  listenToDrops();
}

function listenToDrops() {
  addEventListener('dragover', (event) => {
    event.preventDefault();
    document.body.classList.add('drop');
  });
  addEventListener('dragleave', (event) => {
    // It also leaves each element on its way through the page.
    if (!event.relatedTarget) document.body.classList.remove('drop');
  });
  addEventListener('drop', (event) => {
    event.preventDefault();
    document.body.classList.remove('drop');
    pick(event.dataTransfer.files);
  });
  addEventListener('paste', (event) => pick(event.clipboardData.files));
}

// --- start

async function start() {
  const isAble = globalThis.DecompressionStream && globalThis.WebAssembly;
  if (!isAble) throw new KnownError('oldBrowser');
  engine = await loadEngine(settings);
  document.body.classList.add('ready');
}

prepareAbout(settings);
listen();
const isReady = start();
isReady.catch(fail);
keepOffline(settings);
