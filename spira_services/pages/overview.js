// Shows a data manager what came, by site and day, and takes consents that came on paper.

const WORDS = {
  en: {
    title: 'What came', other: 'Português', leave: 'Sign out', at: 'As of (empty: now)', show: 'Show',
    failed: 'The server does not answer; try again.', gone: 'There is no such page, or it is not yours.',
    as_of: (time) => `As of ${time}.`, days: 'By day and site', pending: 'Consent pending',
    note: 'These sessions are not used until the consent is given.', none: 'None.',
    day: 'day (UTC)', hospital_id: 'site', n_expected: 'expected', n_came: 'came', n_accepted: 'accepted', n_refused: 'refused',
    wrong: 'what is wrong', session_id: 'session', received_at: 'received', version: 'version', scope: 'scope',
    given: 'Consent was given', sure: (name) => `Has the person of session ${name} given the consent, and do you keep it?`,
    form: 'form', recorded_at: 'time of recording', consent: 'consent', research: 'research',
    rules: { required: 'missing', format: 'not of the form', values: 'none of the values', range: 'out of range', personal_data: 'holds personal data',
      unknown_field: 'unknown field', record_again: 'to record again', future: 'in the future' },
  },
  pt: {
    title: 'O que chegou', other: 'English', leave: 'Sair', at: 'Até (vazio: agora)', show: 'Mostrar',
    failed: 'O servidor não responde; tente de novo.', gone: 'Esta página não existe ou não é sua.',
    as_of: (time) => `Até ${time}.`, days: 'Por dia e local', pending: 'Consentimento pendente',
    note: 'Estas sessões não são usadas até que o consentimento seja dado.', none: 'Nenhuma.',
    day: 'dia (UTC)', hospital_id: 'local', n_expected: 'esperadas', n_came: 'chegaram', n_accepted: 'aceitas', n_refused: 'recusadas',
    wrong: 'o que está errado', session_id: 'sessão', received_at: 'recebida', version: 'versão', scope: 'finalidade',
    given: 'Consentimento dado', sure: (name) => `A pessoa da sessão ${name} deu o consentimento, e ele está guardado?`,
    form: 'formulário', recorded_at: 'hora da gravação', consent: 'consentimento', research: 'pesquisa',
    rules: { required: 'falta', format: 'fora do formato', values: 'nenhum dos valores', range: 'fora da faixa', personal_data: 'contém dado pessoal',
      unknown_field: 'campo desconhecido', record_again: 'gravar de novo', future: 'no futuro' },
  },
};
const DAY = ['day', 'hospital_id', 'n_expected', 'n_came', 'n_accepted', 'n_refused', 'wrong'];
const PENDING = ['session_id', 'hospital_id', 'received_at', 'version', 'scope', 'given'];

const find = (selector) => document.querySelector(selector);
let language = (localStorage.getItem('language') ?? navigator.language).startsWith('pt') ? 'pt' : 'en';
let found = null, said = '';

const word = (name) => WORDS[language][name] ?? name;
const time = (text) => new Date(text).toLocaleString(language, { dateStyle: 'short', timeStyle: 'short', timeZone: 'UTC' }) + ' UTC';

function made(name, fields, children = []) {
  const element = Object.assign(document.createElement(name), fields);
  element.append(...children);
  return element;
}

function say(name) {
  said = name;
  find('#said').textContent = name ? word(name) : '';
}

async function ask(path, options) {
  const answer = await fetch(`/collection/v1/${path}`, options).catch(() => null);
  if (answer?.status === 401) location.assign('/sign-in?next=/overview/');
  else if (!answer?.ok) say(answer?.status === 404 ? 'gone' : 'failed');
  return answer?.ok ? answer : null;
}

const CELLS = {
  day: (row) => row.day,
  scope: (row) => word(row.scope),
  received_at: (row) => time(row.received_at),
  session_id: (row) => made('code', { textContent: row.session_id.slice(0, 4).toUpperCase(), title: row.session_id }), // as on the phone
  wrong: (row) => made('div', {}, row.wrong.map(({ field, rule, n_sessions }) => {
    const title = found.titles[field]?.[language] ?? word(field);
    return made('div', { textContent: `${title}: ${word('rules')[rule] ?? rule} (${n_sessions})` });
  })),
  given: (row) => {
    const button = made('button', { type: 'button', textContent: word('given') });
    button.addEventListener('click', () => give(row));
    return button;
  },
};

function table(columns, rows) {
  if (!rows.length) return word('none');
  const isNumber = (name) => name.startsWith('n_');
  const head = columns.map((name) => made('th', { scope: 'col', className: isNumber(name) ? 'number' : '', textContent: word(name) }));
  const lines = rows.map((row) => made('tr', {}, columns.map((name) => {
    const value = CELLS[name]?.(row) ?? row[name] ?? '–';
    return made('td', { className: isNumber(name) ? 'number' : name }, [value]);
  })));
  return made('table', {}, [made('thead', {}, [made('tr', {}, head)]), made('tbody', {}, lines)]);
}

function draw() {
  document.documentElement.lang = language;
  say(said);
  find('#title').textContent = word('title');
  find('#language').textContent = word('other');
  find('#leave').textContent = word('leave');
  find('form label').textContent = word('at');
  find('form button').textContent = word('show');
  if (!found) return;
  find('#as_of').textContent = word('as_of')(time(found.as_of));
  find('#days_title').textContent = word('days');
  find('#pending_title').textContent = word('pending');
  find('#pending_note').textContent = found.pending.length ? word('note') : '';
  find('#days').replaceChildren(table(DAY, found.days));
  find('#pending').replaceChildren(table(PENDING, found.pending));
}

async function load(event) {
  event?.preventDefault();
  const at = find('#at').value;
  const query = at ? `?as_of=${encodeURIComponent(new Date(at).toISOString())}` : '';
  const answer = await ask(`overview${query}`);
  if (answer) {
    found = await answer.json();
    say('');
  }
  draw();
}

async function give({ session_id, version, scope }) {
  if (!confirm(word('sure')(session_id.slice(0, 4).toUpperCase()))) return;
  const body = JSON.stringify({ version, scope, at: new Date().toISOString() });
  const headers = { 'Content-Type': 'application/json' };
  if (await ask(`consents/${session_id}`, { method: 'POST', headers, body })) {
    await load();
    find('#pending').focus(); // the button is gone
  }
}

find('form').addEventListener('submit', load);
find('#language').addEventListener('click', () => {
  language = language === 'pt' ? 'en' : 'pt';
  localStorage.setItem('language', language);
  draw();
});
find('#leave').addEventListener('click', async () => {
  await fetch('/sign-out', { method: 'POST' });
  location.assign('/sign-in?next=/overview/');
});
await load();
