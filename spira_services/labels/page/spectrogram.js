// A spectrogram on a canvas: 32 ms windows, 0 to 8 kHz, 70 dB below the loudest is white.

const RATE_HZ = 16000, SIZE = 512, HOP = 160, RANGE_DB = 70;

/** Draw the spectrogram of an audio file's bytes; return its length in seconds. */
export async function draw(canvas, bytes) {
  const audio = await new OfflineAudioContext(1, 1, RATE_HZ).decodeAudioData(bytes);
  const samples = audio.getChannelData(0);
  const nFrames = Math.max(1, Math.floor((samples.length - SIZE) / HOP) + 1);
  const levels = spectrum(samples, nFrames);
  let loudest = -Infinity;
  for (const level of levels) loudest = Math.max(loudest, level);
  canvas.width = nFrames;
  canvas.height = SIZE / 2;
  const context = canvas.getContext('2d');
  const picture = context.createImageData(nFrames, SIZE / 2);
  for (let frame = 0; frame < nFrames; frame++) {
    for (let bin = 0; bin < SIZE / 2; bin++) {
      const level = (loudest - levels[frame * (SIZE / 2) + bin]) / RANGE_DB;
      const place = 4 * ((SIZE / 2 - 1 - bin) * nFrames + frame);
      picture.data.fill(255 * Math.min(1, level), place, place + 3);
      picture.data[place + 3] = 255;
    }
  }
  context.putImageData(picture, 0, 0);
  return audio.duration;
}

/** Levels in dB, frame by frame. */
export function spectrum(samples, nFrames) {
  const levels = new Float32Array(nFrames * SIZE / 2);
  const real = new Float64Array(SIZE), imaginary = new Float64Array(SIZE);
  for (let frame = 0; frame < nFrames; frame++) {
    for (let n = 0; n < SIZE; n++) {
      const window = 0.5 - 0.5 * Math.cos(2 * Math.PI * n / SIZE);
      real[n] = window * (samples[frame * HOP + n] ?? 0);
    }
    imaginary.fill(0);
    transform(real, imaginary);
    for (let bin = 0; bin < SIZE / 2; bin++) {
      const power = real[bin] ** 2 + imaginary[bin] ** 2;
      levels[frame * SIZE / 2 + bin] = 10 * Math.log10(power + 1e-12);
    }
  }
  return levels;
}

/** The discrete Fourier transform of a power of two of samples, in place (Cooley, Tukey 1965). */
function transform(real, imaginary) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let half = 1; half < n; half *= 2) {
    for (let k = 0; k < half; k++) {
      const cos = Math.cos(Math.PI * k / half), sin = -Math.sin(Math.PI * k / half);
      for (let a = k; a < n; a += 2 * half) {
        const b = a + half;
        const re = real[b] * cos - imaginary[b] * sin, im = real[b] * sin + imaginary[b] * cos;
        real[b] = real[a] - re;
        imaginary[b] = imaginary[a] - im;
        real[a] += re;
        imaginary[a] += im;
      }
    }
  }
}
