/* In the audio thread: pass on what the microphone gives, in blocks, and count what it does not. */

const BLOCK = 2048; // samples: 43 ms at 48 kHz, often enough for a level meter

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK);
    this.filled = 0;
    this.missed = 0; // samples that never came since the last block
    this.expected = currentFrame;
    this.port.onmessage = () => this.pass(true);
  }

  process([[channel]]) {
    this.missed += currentFrame - this.expected;
    this.expected = currentFrame + 128;
    if (channel === undefined) {
      this.missed += 128;
      return true;
    }
    this.expected = currentFrame + channel.length;
    this.block.set(channel, this.filled);
    this.filled += channel.length;
    if (this.filled === BLOCK) this.pass(false);
    return true;
  }

  pass(last) {
    const samples = this.block.slice(0, this.filled);
    this.port.postMessage({ samples, missed: this.missed, last }, [samples.buffer]);
    this.filled = 0;
    this.missed = 0;
  }
}

registerProcessor("capture", Capture);
