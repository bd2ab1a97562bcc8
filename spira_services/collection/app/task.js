/* A recording task: the prompt, the recorder with its meter, the check of the take, its playback. */

import { check } from "./checks.js";
import { el, replaceIn, say } from "./dom.js";
import { problemInWords } from "./form.js";
import { Microphone, play } from "./recorder.js";
import { isUsable } from "./steps.js";
import { addTake, bytesOf, change, session } from "./store.js";
import { isoWithOffset } from "./time.js";
import { decodeWav, encodeWav, sha256 } from "./wav.js";
import { both, number, t } from "./words.js";

const METER_FLOOR_DB = -60;
const LOUD_PEAK = 0.985;
const HINT_SECONDS = 0.4; // between changes of the word beside the meter, so that it can be read

export async function taskStep({ id, form, record, step, next }) {
  const task = form.tasks.find((each) => each.task === step);
  const panel = el("div", { id: "panel" });
  const meter = meterOf(task);
  let { takes, skipped, problems } = record;
  let state = "idle"; // or opening, recording, checking
  let trouble = ""; // what keeps the microphone from working
  let microphone = null;
  let startedAt = "";
  let stopPlaying = null;
  let wave = null;
  let drawnWave = ""; // id of the take that it shows
  let awake = null; // keeps the screen on

  const setState = (to) => {
    state = to;
    document.getElementById("bar").inert = to !== "idle"; // nothing leads away from a recording
    document.getElementById("steps").inert = to !== "idle";
    draw();
  };

  const record_ = async () => {
    stopPlaying?.();
    trouble = "";
    setState("opening");
    try {
      if (!microphone?.usable) {
        microphone?.close();
        microphone = await Microphone.open(onLevel);
        microphone.onInterrupted = () => state === "recording" && void stop();
      }
    } catch (error) {
      microphone = null;
      trouble = t(error.name === "NotAllowedError" ? "mic_denied" : "mic_none");
      setState("idle");
      return;
    }
    awake = await navigator.wakeLock?.request("screen").catch(() => null);
    startedAt = isoWithOffset();
    microphone.start();
    say(t("recording"));
    setState("recording");
  };

  const onLevel = (level, peak) => {
    if (state !== "recording") return;
    meter.show(level, peak, microphone.seconds);
    if (microphone.seconds >= task.max_seconds) void stop();
  };

  const stop = async () => {
    if (state !== "recording") return;
    setState("checking");
    const { pcm16, rateHz, interrupted } = await microphone.stop();
    void awake?.release().catch(() => {});
    const { findings, measured } = check(pcm16, rateHz, task, form.limits, interrupted);
    const bytes = encodeWav(pcm16, rateHz);
    const take = {
      id: crypto.randomUUID(),
      task: step,
      sha256: await sha256(bytes),
      n_bytes: bytes.byteLength,
      seconds: measured.seconds,
      recorded_at: startedAt,
      prompt_version: form.prompt_version,
      capture: microphone.settings,
      findings,
      kept: false,
    };
    try {
      ({ takes, skipped, problems } = await addTake(id, take, bytes));
      say([t(verdictOf(take)), ...findings.map((finding) => inWords(finding, task))].join(". "));
    } catch {
      trouble = t("not_saved");
    }
    setState("idle");
  };

  const keep = async () => {
    ({ takes } = await change(id, (now) => {
      now.takes[step].kept = true;
    }));
    draw();
    document.getElementById("next")?.focus();
  };

  const skip = async () => {
    await change(id, (now) => {
      now.skipped[step] = true;
    });
    await next();
  };

  const listen = async () => {
    if (stopPlaying) return stopPlaying();
    const bytes = await bytesOf(takes[step]);
    if (!bytes) return undefined;
    const { pcm16, rateHz } = decodeWav(bytes);
    stopPlaying = play(pcm16, rateHz, () => {
      stopPlaying = null;
      draw();
    });
    draw();
    return undefined;
  };

  const duration = t("between_seconds", { min: number(task.min_seconds), max: number(task.max_seconds) });

  const draw = () => {
    const take = takes[step];
    if (take?.id !== drawnWave) wave = take && waveOf(take); // drawn once a take
    drawnWave = take?.id;
    const busy = state !== "idle";
    const refused = problems.find((problem) => problem.task === step);
    const done = take && isUsable(take) && !refused;
    replaceIn(
      panel,
      trouble && el("p", { class: "care", role: "alert" }, trouble),
      busy ? recordingPanel() : take ? takePanel(take, refused) : el("p", { class: "note" }, duration, skipped[step] && ` · ${t("skipped")}`),
      el(
        "div",
        { class: "bottom" },
        state === "recording"
          ? el("button", { type: "button", class: "stop", id: "record", onclick: () => void stop() }, t("stop"))
          : el(
              "button",
              { type: "button", class: done ? "" : "record", id: "record", "aria-disabled": busy, onclick: () => busy || void record_() },
              t(take ? "record_again" : "record"),
            ),
        !busy && done && el("button", { type: "button", class: "primary", id: "next", onclick: () => void next() }, t("next")),
        !busy && !done && take?.findings.every((finding) => finding.keep) && !refused &&
          el("button", { type: "button", id: "keep", onclick: () => void keep() }, t("keep")),
        !busy && !take && !task.required && el("button", { type: "button", class: "quiet", id: "skip", onclick: () => void skip() }, t("skip")),
      ),
    );
  };

  const recordingPanel = () =>
    el(
      "div",
      { class: `card take ${state}` },
      el("p", { class: "live" }, t(state)),
      state === "recording" && meter.element,
    );

  const takePanel = (take, refused) => {
    const verdict = refused ? "take_bad" : verdictOf(take);
    const findings = refused ? [] : take.findings;
    return el(
      "div",
      { class: `card take ${verdict}`, role: "group", "aria-labelledby": "verdict" },
      el("p", { class: "verdict", id: "verdict" }, t(verdict), el("span", {}, t("seconds", { n: number(Math.round(10 * take.seconds) / 10) }))),
      refused && el("p", {}, problemInWords(refused, form)),
      findings.map((finding) => el("p", {}, inWords(finding, task))),
      take.kept && findings.length > 0 && el("p", { class: "note" }, t("kept")),
      el(
        "div",
        { class: "playback" },
        el("button", { type: "button", id: "listen", onclick: () => void listen() }, t(stopPlaying ? "stop_listening" : "listen")),
        wave,
      ),
      Object.values(take.capture).includes(true) && el("p", { class: "note" }, t("mic_processing")),
    );
  };

  const release = () => {
    if (document.visibilityState === "visible" || state !== "idle") return;
    microphone?.close(); // the sign of the phone that it listens goes out
    microphone = null;
  };
  document.addEventListener("visibilitychange", release);
  const warn = (event) => state === "recording" && event.preventDefault();
  addEventListener("beforeunload", warn);
  draw();

  return {
    title: both(task.title),
    leave: async () => {
      document.removeEventListener("visibilitychange", release);
      removeEventListener("beforeunload", warn);
      stopPlaying?.();
      await stop();
      microphone?.close();
    },
    elements: [
      el("p", { class: "instruction" }, both(task.instruction)),
      promptOf(task),
      panel,
    ],
  };
}

/** What is said is Portuguese in any language of the page: the recordings must not differ by it. */
function promptOf(task) {
  const isSaid = task.task !== "AMBIENT";
  return el(
    "figure",
    { class: "prompt" },
    isSaid && el("figcaption", {}, t("prompt_says")),
    el("blockquote", { lang: isSaid && "pt-BR" }, both(task.prompt)),
  );
}

function verdictOf(take) {
  if (take.findings.length === 0) return "take_good";
  return take.findings.every(({ keep }) => keep) ? "take_care" : "take_bad";
}

const inWords = ({ code }, task) => t(`find_${code}`, { min: number(task.min_seconds) });

/** A bar for the level, the seconds, and a word of what to do. */
function meterOf(task) {
  const fill = el("div", { class: "fill" });
  const bar = el("div", { class: "meter", "aria-hidden": "true" }, fill);
  const hint = el("span", { class: "hint" });
  const seconds = el("span", { class: "seconds" });
  let held = 0;
  let hinted = -1;
  const show = (level, peak, now) => {
    const db = Math.max(20 * Math.log10(level || 1e-6), METER_FLOOR_DB);
    held = Math.max(db, held - 1.5); // falls slowly: words can be seen
    fill.style.width = `${(100 * (held - METER_FLOOR_DB)) / -METER_FLOOR_DB}%`;
    const clock = t("seconds", { n: number(Math.floor(now)) });
    seconds.textContent = now < task.min_seconds ? `${clock} · ${t("at_least", { n: number(task.min_seconds) })}` : clock;
    if (now < hinted) hinted = -1; // a new recording
    if (now - hinted < HINT_SECONDS && peak < LOUD_PEAK) return;
    hinted = now;
    const word = task.task === "AMBIENT" ? "ambient" : peak >= LOUD_PEAK ? "loud" : held < -40 ? "quiet" : "good";
    bar.className = `meter ${word}`;
    hint.textContent = t(`level_${word}`);
  };
  return { show, element: el("div", {}, bar, el("p", { class: "under" }, hint, seconds)) };
}

/** The envelope of a take: whether the voice is on it is seen at a glance. */
function waveOf(take) {
  const [width, height] = [600, 80];
  const canvas = el("canvas", { class: "wave", width, height, "aria-hidden": "true" });
  void bytesOf(take).then((bytes) => {
    if (!bytes) return;
    const { pcm16 } = decodeWav(bytes);
    const paint = canvas.getContext("2d");
    paint.fillStyle = getComputedStyle(canvas).color;
    const each = pcm16.length / width;
    for (let x = 0; x < width; x += 2) {
      let most = 0;
      for (let i = Math.floor(x * each); i < (x + 2) * each && i < pcm16.length; i += 1) most = Math.max(most, Math.abs(pcm16[i]));
      const tall = Math.max(2, (height * most) / 32_768);
      paint.fillRect(x, (height - tall) / 2, 1, tall);
    }
  });
  return canvas;
}
