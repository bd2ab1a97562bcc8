/* Mono PCM16 in a WAV file: no codec, because a codec would tell sites apart. */

const HEADER_BYTES = 44;
export const FULL_SCALE = 32_768;

/** Float samples in [-1, 1] as 16 bits. */
export function toPcm16(samples) {
  return Int16Array.from(samples, (sample) =>
    Math.max(-FULL_SCALE, Math.min(FULL_SCALE - 1, Math.round(sample * FULL_SCALE))),
  );
}

/** The bytes of a WAV file. */
export function encodeWav(pcm16, rateHz) {
  const bytes = new ArrayBuffer(HEADER_BYTES + 2 * pcm16.length);
  const view = new DataView(bytes);
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, bytes.byteLength - 8, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of this chunk
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, rateHz, true);
  view.setUint32(28, 2 * rateHz, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a frame
  view.setUint16(34, 16, true); // bits a sample
  text(36, "data");
  view.setUint32(40, 2 * pcm16.length, true);
  pcm16.forEach((sample, i) => view.setInt16(HEADER_BYTES + 2 * i, sample, true));
  return bytes;
}

/** Samples and rate of a file that `encodeWav` made. */
export function decodeWav(bytes) {
  const view = new DataView(bytes);
  const pcm16 = new Int16Array((bytes.byteLength - HEADER_BYTES) / 2);
  for (let i = 0; i < pcm16.length; i += 1) pcm16[i] = view.getInt16(HEADER_BYTES + 2 * i, true);
  return { pcm16, rateHz: view.getUint32(24, true) };
}

/** SHA-256 of bytes in hexadecimal digits. */
export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
