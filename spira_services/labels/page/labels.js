// Labels sessions by ear, from the keyboard.  Nobody else's answer is fetched before one's own.

import { draw } from '/labels/spectrogram.js';

const WORDS = {
  en: {
    other: 'Português', leave: 'Sign out', instruction: 'Instruction', play: 'Play or pause',
    label: 'Your answer', yes: 'yes', no: 'no', unknown: 'cannot tell',
    confidence: 'How sure are you?', low: 'a little', middle: 'fairly', high: 'very',
    send: 'Send (Enter)', next: 'Next (Enter)', nothing: 'There is nothing to label now.',
    adjudicate: 'You are asked to decide on this session, without knowing what others said.',
    waiting: (n) => `Sessions waiting: ${n}.`, choose: 'Choose an answer first.',
    failed: 'The server does not answer; what you chose is still here. Try again.', gone: 'This session is not yours any more.', not_there: 'There is no such page, or it is not yours.',
    silent: 'This browser cannot play one of the recordings; answer ? if you cannot tell without it.',
    thanks: 'Stored.', programs: 'Programs gave a probability of',
    keys: 'Space plays and pauses; ← and → go back and forth 2 s; ↑ and ↓ change the recording.',
    AMBIENT: 'room', VOWEL: 'vowel', RHYME: 'rhyme', SENTENCE: 'sentence',
    spo2: 'SpO2, %', on_oxygen: 'On oxygen', resp_rate: 'Breaths a minute', heart_rate: 'Beats a minute', temp: 'Temperature, °C',
  },
  pt: {
    other: 'English', leave: 'Sair', instruction: 'Instrução', play: 'Tocar ou pausar',
    label: 'Sua resposta', yes: 'sim', no: 'não', unknown: 'não dá para decidir',
    confidence: 'Quanta certeza?', low: 'pouca', middle: 'razoável', high: 'muita',
    send: 'Enviar (Enter)', next: 'Próxima (Enter)', nothing: 'Não há nada para rotular agora.',
    adjudicate: 'Pede-se que você decida sobre esta sessão, sem saber o que outros disseram.',
    waiting: (n) => `Sessões à espera: ${n}.`, choose: 'Escolha uma resposta antes.',
    failed: 'O servidor não responde; sua escolha continua aqui. Tente de novo.', gone: 'Esta sessão não é mais sua.', not_there: 'Esta página não existe ou não é sua.',
    silent: 'Este navegador não toca uma das gravações; responda ? se não der para decidir sem ela.',
    thanks: 'Guardado.', programs: 'Programas deram a probabilidade',
    keys: 'Espaço toca e pausa; ← e → voltam e avançam 2 s; ↑ e ↓ mudam de gravação.',
    AMBIENT: 'ambiente', VOWEL: 'vogal', RHYME: 'cantiga', SENTENCE: 'frase',
    spo2: 'SpO2, %', on_oxygen: 'Com oxigênio', resp_rate: 'Respirações por minuto', heart_rate: 'Batimentos por minuto', temp: 'Temperatura, °C',
  },
};
const ANSWER_KEYS = { 1: ['label', '1'], 0: ['label', '0'], '?': ['label', '?'], a: ['confidence', '0.6'], s: ['confidence', '0.8'], d: ['confidence', '0.95'] };

const find = (selector) => document.querySelector(selector);
let language = (localStorage.getItem('language') ?? navigator.language).startsWith('pt') ? 'pt' : 'en';
let instruction = null, task = null, takes = [], current = 0, submission = '', after = null, said = '';

const word = (name) => WORDS[language][name] ?? name;

async function ask(path, options) {
  const answer = await fetch(`/labels/v1/${path}`, options).catch(() => null);
  if (answer?.status === 401) location.assign('/sign-in?next=/labels/');
  return answer;
}

function say(name) {
  said = name;
  find('#said').textContent = name ? word(name) : '';
  find('#said').classList.toggle('calm', name === 'nothing');
}

function translate() {
  document.documentElement.lang = language;
  say(said);
  find('#language').textContent = word('other');
  find('#leave').textContent = word('leave');
  find('#instruction summary').textContent = word('instruction');
  if (instruction) {
    find('#title').textContent = instruction.title[language];
    find('#instruction p').textContent = instruction.text[language];
  }
  for (const [id, names] of [['label', ['yes', 'no', 'unknown']], ['confidence', ['low', 'middle', 'high']]]) {
    find(`#${id} legend`).textContent = word(id);
    document.querySelectorAll(`#${id} span`).forEach((span, n) => { span.textContent = word(names[n]); });
  }
  find('#send').textContent = word('send');
  find('#next').textContent = word('next');
  find('#keys').textContent = word('keys');
  for (const take of takes) {
    take.button.textContent = `${word(take.name)}: ${word('play')}`;
    take.scale.textContent = `${take.seconds.toLocaleString(language, { maximumFractionDigits: 1 })} s · 0–8 kHz`;
  }
  const note = task?.purpose === 'adjudicate' ? ` ${word('adjudicate')}` : '';
  find('#waiting').textContent = task ? WORDS[language].waiting(task.n_open) + note : '';
  const signs = Object.entries(task?.signs ?? {}).map(([name, value]) => {
    const term = document.createElement('dt'), given = document.createElement('dd');
    term.textContent = word(name);
    given.textContent = value === null ? '–' : { true: word('yes'), false: word('no') }[value] ?? value;
    return [term, given];
  });
  find('#signs').replaceChildren(...signs.flat());
  if (after) {
    const given = Object.values(after).map((p) => `${Math.round(100 * p)} %`).join(', ');
    find('#after p').textContent = word('thanks') + (given ? ` ${word('programs')} ${given}.` : '');
  }
}

async function addTake(name) {
  const answer = await ask(`sessions/${task.session_id}/${name}`);
  if (!answer?.ok) return say('failed');
  const sound = await answer.blob();
  const block = document.createElement('div'), button = document.createElement('button'), scale = document.createElement('span');
  const picture = document.createElement('div'), canvas = document.createElement('canvas'), head = document.createElement('div');
  block.className = 'take';
  picture.className = 'picture';
  head.className = 'head';
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', word(name));
  button.type = 'button';
  picture.append(canvas, head);
  block.append(button, scale, picture);
  find('#recordings').append(block);
  const audio = new Audio(URL.createObjectURL(sound));
  const take = { name, block, button, scale, audio, seconds: 0 };
  takes.push(take);
  button.addEventListener('click', () => { choose(takes.indexOf(take)); toggle(); });
  const seconds = await draw(canvas, await sound.arrayBuffer()).catch(() => 0);
  if (!seconds) say('silent');
  take.seconds = seconds;
  const move = () => {
    head.style.transform = `translateX(${picture.clientWidth * audio.currentTime / seconds}px)`;
    if (!audio.paused) requestAnimationFrame(move);
  };
  for (const name of ['play', 'seeked', 'pause']) audio.addEventListener(name, move);
  picture.addEventListener('click', (event) => {
    audio.currentTime = seconds * event.offsetX / picture.clientWidth;
    choose(takes.indexOf(take));
  });
  block.dataset.drawn = 'yes';
}

function choose(number) {
  takes[current]?.audio.pause();
  current = Math.max(0, Math.min(takes.length - 1, number));
  takes.forEach((take, n) => take.block.classList.toggle('current', n === current));
}

function toggle() {
  const audio = takes[current]?.audio;
  if (audio) audio.paused ? audio.play() : audio.pause();
}

async function next() {
  for (const take of takes) { take.audio.pause(); URL.revokeObjectURL(take.audio.src); }
  takes = [];
  after = null;
  say('');
  find('#recordings').replaceChildren();
  find('form').reset();
  find('#after').hidden = true;
  find('#work').hidden = true;
  const answer = await ask('next');
  task = answer?.ok ? await answer.json() : null;
  if (!answer?.ok) say(answer?.status === 404 ? 'gone' : 'failed');
  else if (!task) say('nothing');
  submission = Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, '0')).join('');
  find('#work').hidden = !task;
  if (task) {
    for (const name of task.recordings) await addTake(name);
    choose(0);
  }
  translate();
}

async function send(event) {
  event?.preventDefault();
  const { label, confidence } = Object.fromEntries(new FormData(find('form')));
  if (label === undefined) return say('choose');
  const given = {
    session_id: task.session_id,
    label: label === '?' ? null : Number(label),
    confidence: confidence === undefined ? null : Number(confidence),
    instruction_version: instruction.version,
    submission_id: submission, // sent again, it is the same answer
  };
  const answer = await ask('answers', {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(given),
  });
  if (!answer?.ok) return say(answer?.status === 404 ? 'gone' : 'failed');
  after = (await answer.json()).pre_labels;
  say('');
  find('#work').hidden = true;
  find('#after').hidden = false;
  translate();
  find('#next').focus();
}

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || find('#work').hidden) return;
  const key = event.key.toLowerCase(), audio = takes[current]?.audio;
  const isButton = event.target instanceof HTMLButtonElement || event.target.tagName === 'SUMMARY';
  if (key in ANSWER_KEYS) {
    const [name, value] = ANSWER_KEYS[key];
    for (const input of document.querySelectorAll(`[name=${name}]`)) input.checked = input.value === value;
  } else if (key === ' ' && !isButton) toggle();
  else if (key === 'enter' && !isButton) send();
  else if (key === 'arrowleft' && audio) audio.currentTime -= 2;
  else if (key === 'arrowright' && audio) audio.currentTime += 2;
  else if (key === 'arrowup') choose(current - 1);
  else if (key === 'arrowdown') choose(current + 1);
  else return;
  event.preventDefault();
});
find('form').addEventListener('submit', send);
find('#next').addEventListener('click', next);
find('#language').addEventListener('click', () => {
  language = language === 'pt' ? 'en' : 'pt';
  localStorage.setItem('language', language);
  translate();
});
find('#leave').addEventListener('click', async () => {
  await fetch('/sign-out', { method: 'POST' });
  location.assign('/sign-in?next=/labels/');
});

const answer = await ask('instruction');
instruction = answer?.ok ? await answer.json() : null;
if (instruction) await next();
else if (answer?.status !== 401) { translate(); say(answer?.status === 404 ? 'not_there' : 'failed'); }
