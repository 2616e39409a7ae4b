// Open a photo: upright, of a size that fits a phone's memory, or an error in words.

import { KnownError } from './messages.js';

const MOST_PIXELS = 100e6;
const LONGEST_SIDE = 2560;
const HEADER_BYTES = 1 << 18;

/** The picture in a file as a bitmap, turned as its camera says. Throws KnownError. */
export async function openPicture(file) {
  if (file.size === 0) throw new KnownError('emptyFile');
  const header = new Uint8Array(await file.slice(0, HEADER_BYTES).arrayBuffer());
  const kind = kindOf(header);
  const size = kind && sizeOf(kind, header);
  // Before the browser makes room for it, which may end the page.
  if (size && size[0] * size[1] > MOST_PIXELS) throw new KnownError('tooLarge');
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: 'from-image' });
  } catch {
    throw new KnownError(failureOf(kind, file));
  }
  return reduced(bitmap);
}

function failureOf(kind, file) {
  if (['heic', 'tiff', 'jxl'].includes(kind) || file.type === 'image/svg+xml') return 'otherFormat';
  return kind ? 'damaged' : 'notPicture';
}

async function reduced(bitmap) {
  const scale = LONGEST_SIDE / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return bitmap;
  const smaller = await createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.round(bitmap.width * scale)),
    resizeHeight: Math.max(1, Math.round(bitmap.height * scale)),
    resizeQuality: 'high',
  });
  bitmap.close();
  return smaller;
}

/** The format of a file by its first bytes, null for none of a picture. */
export function kindOf(bytes) {
  const text = (start, end) => String.fromCharCode(...bytes.subarray(start, end));
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return 'jpeg';
  if (text(1, 4) === 'PNG') return 'png';
  if (text(0, 4) === 'GIF8') return 'gif';
  if (text(0, 4) === 'RIFF' && text(8, 12) === 'WEBP') return 'webp';
  if (text(0, 2) === 'BM') return 'bmp';
  if (text(0, 4) === 'II*\0' || text(0, 4) === 'MM\0*') return 'tiff';
  if ((bytes[0] === 0xff && bytes[1] === 0x0a) || text(4, 8) === 'JXL ') return 'jxl';
  if (text(4, 8) !== 'ftyp') return null;
  const brand = text(8, 12);
  if (brand === 'avif' || brand === 'avis') return 'avif';
  return ['heic', 'heix', 'hevc', 'mif1', 'msf1'].includes(brand) ? 'heic' : null;
}

/** Width and height by the header, null where they are not found there. */
export function sizeOf(kind, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    if (kind === 'png') return [view.getUint32(16), view.getUint32(20)];
    if (kind === 'gif') return [view.getUint16(6, true), view.getUint16(8, true)];
    if (kind === 'bmp') return [view.getUint32(18, true), Math.abs(view.getInt32(22, true))];
    if (kind === 'jpeg') return jpegSize(view);
  } catch (error) {
    // A header that ends early.
    if (!(error instanceof RangeError)) throw error;
  }
  return null;
}

function jpegSize(view) {
  let at = 2;
  while (view.getUint8(at) === 0xff) {
    const marker = view.getUint8(at + 1);
    // Start of frame: 0xC0 to 0xCF, but for three markers of other tables.
    const isFrame = (marker & 0xf0) === 0xc0 && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return [view.getUint16(at + 7), view.getUint16(at + 5)];
    at += 2 + view.getUint16(at + 2);
  }
  return null;
}
