/* What can be wrong with a take, found on the phone while the person is still there.

   The measures are those of the server's, so that what passes here is not refused there. */

import { FULL_SCALE } from "./wav.js";

const CLIPPED = 0.985; // of full scale; converters saturate a little below 1.0
const DEAD_PEAK = 4; // of 32,768: a microphone in the quietest room gives more
const DEFAULTS = {
  clipping_fraction: 0.02,
  typical_clipping_fraction: 0.001,
  min_level_dbfs: -55,
  typical_level_dbfs: -40,
  dc_offset: 0.05,
  longest_digital_silence_seconds: 0.5,
};

/** Measure samples of 16 bits. */
export function measure(pcm16, rateHz) {
  let [sum, squares, peak, clipped, first, last, gap] = [0, 0, 0, 0, -1, -1, 0];
  let [low, high] = [FULL_SCALE, -FULL_SCALE];
  pcm16.forEach((sample, i) => {
    const size = Math.abs(sample);
    sum += sample;
    squares += sample * sample;
    if (size > peak) peak = size;
    if (size > CLIPPED * FULL_SCALE) clipped += 1;
    if (sample < low) low = sample;
    if (sample > high) high = sample;
    if (sample !== 0) {
      if (first < 0) first = i;
      else gap = Math.max(gap, i - last - 1);
      last = i;
    }
  });
  const n = Math.max(pcm16.length, 1);
  const mean = sum / n;
  const power = Math.max(squares / n - mean * mean, 0) / FULL_SCALE ** 2;
  return {
    seconds: pcm16.length / rateHz,
    level_dbfs: Math.max(10 * Math.log10(power || 1e-12), -120),
    peak: peak / FULL_SCALE,
    swing: pcm16.length ? high - low : 0, // of a dead input with an offset it is as small as its peak is not
    clipping_fraction: clipped / n,
    dc_offset: mean / FULL_SCALE,
    longest_digital_silence_seconds: gap / rateHz,
  };
}

/**
 * What is wrong with a take: `[{code, keep}]`, the gravest first.
 *
 * `keep` says whether the collector may keep it all the same: where it may not, the server would
 * refuse it.
 */
export function check(pcm16, rateHz, task, limits = {}, interrupted = false) {
  const limit = { ...DEFAULTS, ...limits };
  const found = measure(pcm16, rateHz);
  const voiced = task.task !== "AMBIENT";
  const findings = [];
  const add = (code, keep = false) => findings.push({ code, keep });
  if (found.swing <= 2 * DEAD_PEAK) {
    add("dead_input");
    return { findings, measured: found };
  }
  if (interrupted) add("interrupted");
  if (found.seconds < task.min_seconds) add("too_short");
  if (found.clipping_fraction > limit.clipping_fraction) add("clipped");
  else if (found.clipping_fraction > limit.typical_clipping_fraction) add("clipped_a_little", true);
  if (voiced && found.level_dbfs < limit.min_level_dbfs) add("too_quiet");
  else if (voiced && found.level_dbfs < limit.typical_level_dbfs) add("quiet", true);
  if (Math.abs(found.dc_offset) > limit.dc_offset) add("defective_input");
  if (found.longest_digital_silence_seconds > limit.longest_digital_silence_seconds) add("gaps");
  findings.sort((a, b) => Number(a.keep) - Number(b.keep));
  return { findings, measured: found };
}
