/* The microphone: raw samples at the rate of the audio context, never a codec. */

import { toPcm16 } from "./wav.js";

// What phones do to make calls pleasant changes the voice that is to be measured.
const RAW = { channelCount: 1, noiseSuppression: false, autoGainControl: false, echoCancellation: false };
const MAX_MISSED_SECONDS = 0.05;

export class Microphone {
  /** Ask for the microphone.  `onLevel` gets the level of each block: root mean square and peak. */
  static async open(onLevel) {
    const microphone = new Microphone();
    microphone.onLevel = onLevel;
    microphone.context = new AudioContext();
    try {
      microphone.stream = await navigator.mediaDevices.getUserMedia({ audio: RAW });
      await microphone.context.audioWorklet.addModule("capture.js");
      await microphone.context.resume();
    } catch (error) {
      microphone.close();
      throw error;
    }
    microphone.connect();
    return microphone;
  }

  connect() {
    [this.track] = this.stream.getAudioTracks();
    this.track.addEventListener("ended", () => this.interrupt());
    this.track.addEventListener("mute", () => this.interrupt());
    this.context.addEventListener("statechange", () => {
      if (this.context.state !== "running") this.interrupt(); // a telephone call on iOS
    });
    const options = { numberOfInputs: 1, numberOfOutputs: 1, channelCount: 1, channelCountMode: "explicit" };
    this.node = new AudioWorkletNode(this.context, "capture", options);
    this.node.addEventListener("processorerror", () => this.interrupt());
    this.node.port.onmessage = ({ data }) => this.receive(data);
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    this.node.connect(this.context.destination); // it is silent; without, some browsers do not run it
  }

  /** What the browser says that it does, which need not be what it was asked to do. */
  get settings() {
    const { noiseSuppression, autoGainControl, echoCancellation } = this.track.getSettings();
    const reported = (value) => (typeof value === "boolean" ? value : value === undefined ? null : true);
    return {
      ns: reported(noiseSuppression),
      agc: reported(autoGainControl),
      aec: reported(echoCancellation), // may be a word that says which
      sample_rate_hz: this.context.sampleRate,
    };
  }

  get usable() {
    return this.track?.readyState === "live" && !this.track.muted && this.context.state === "running";
  }

  interrupt() {
    this.interrupted = true;
    this.onInterrupted?.();
  }

  start() {
    this.blocks = [];
    this.missed = 0;
    this.interrupted = false;
  }

  receive({ samples, missed, last }) {
    const square = samples.reduce((sum, sample) => sum + sample * sample, 0);
    const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    if (this.blocks) {
      this.blocks.push(toPcm16(samples));
      this.missed += this.blocks.length > 1 ? missed : 0; // the first may reach back before the start
    }
    if (samples.length) this.onLevel(Math.sqrt(square / samples.length), peak);
    if (last) this.onLast?.();
  }

  /** Seconds that were recorded so far. */
  get seconds() {
    return (this.blocks ?? []).reduce((n, block) => n + block.length, 0) / this.context.sampleRate;
  }

  /** The samples since the start. */
  async stop() {
    const last = new Promise((resolve) => {
      this.onLast = resolve;
      setTimeout(resolve, 500); // a context that was suspended never answers
    });
    this.node.port.postMessage("pass on what is left");
    await last;
    const rateHz = this.context.sampleRate;
    const pcm16 = new Int16Array(this.blocks.reduce((n, block) => n + block.length, 0));
    let at = 0;
    for (const block of this.blocks) {
      pcm16.set(block, at);
      at += block.length;
    }
    this.blocks = null;
    return { pcm16, rateHz, interrupted: this.interrupted || this.missed > MAX_MISSED_SECONDS * rateHz };
  }

  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.context.state !== "closed") this.context.close();
  }
}

/** Play a take; `onEnd` is called once, at its end or when it is stopped.  Returns what stops it. */
export function play(pcm16, rateHz, onEnd) {
  const context = new AudioContext();
  const buffer = context.createBuffer(1, Math.max(pcm16.length, 1), rateHz);
  buffer.copyToChannel(Float32Array.from(pcm16, (sample) => sample / 32_768), 0);
  const source = context.createBufferSource();
  source.buffer = buffer;
  source.connect(context.destination);
  source.onended = () => {
    context.close();
    onEnd();
  };
  context.resume();
  source.start();
  return () => source.stop();
}
