// The files of the app: embedded in the page, or beside it on the host.

const GZIP_MAGIC = [0x1f, 0x8b];

/** What Python has written into the page: model, detector, texts. */
export function readSettings() {
  return JSON.parse(document.getElementById('settings').textContent);
}

/** The bytes of a file by its name, unpacked if they are gzip. */
export async function readFile(name) {
  const element = document.getElementById(`file:${name}`);
  const bytes = element ? fromBase64(element.textContent) : await fetchBytes(name);
  // The text of the file is 5 MB that nothing reads again.
  element?.remove();
  return isGzip(bytes) ? unpack(bytes) : bytes;
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

async function fetchBytes(name) {
  const response = await fetch(`./${name}`);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

// Some hosts unpack files that end in .gz on the way.
function isGzip(bytes) {
  return bytes[0] === GZIP_MAGIC[0] && bytes[1] === GZIP_MAGIC[1];
}

async function unpack(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
