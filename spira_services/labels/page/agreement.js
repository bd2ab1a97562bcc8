// Shows how far those agree who label, as the server lets it be shown.

const WORDS = {
  en: {
    title: 'Agreement of those who label', note: '· is suppressed (fewer than 5 sessions) or cannot be computed. People are shown by pseudonym.',
    failed: 'There is no such page, or it is not yours.', none: 'None yet.', backlog: 'Sessions', overall: 'All', by_instruction: 'By version of the instruction',
    pairs: 'Pairs', annotators: 'Annotators', hardest: 'Most disputed sessions', n_items: 'sessions', n_ratings: 'answers', disagreement: 'disagreement',
    alpha: 'Krippendorff’s alpha', kappa: 'Cohen’s kappa', first: 'first', second: 'second', annotator: 'annotator', share_positive: 'share of yes',
    accuracy: 'accuracy (Dawid–Skene)', sensitivity: 'sensitivity', specificity: 'specificity', n_gold: 'known answers', gold_accuracy: 'accuracy on them',
    session_id: 'session', difficulty: 'difficulty', version: 'version', open: 'open', disputed: 'disputed', settled: 'settled',
  },
  pt: {
    title: 'Concordância de quem rotula', note: '· está suprimido (menos de 5 sessões) ou não se pode calcular. As pessoas aparecem por pseudônimo.',
    failed: 'Esta página não existe ou não é sua.', none: 'Ainda não há.', backlog: 'Sessões', overall: 'Todas', by_instruction: 'Por versão da instrução',
    pairs: 'Pares', annotators: 'Quem rotula', hardest: 'Sessões mais disputadas', n_items: 'sessões', n_ratings: 'respostas', disagreement: 'discordância',
    alpha: 'alfa de Krippendorff', kappa: 'kappa de Cohen', first: 'um', second: 'outro', annotator: 'pseudônimo', share_positive: 'parte de sim',
    accuracy: 'acurácia (Dawid–Skene)', sensitivity: 'sensibilidade', specificity: 'especificidade', n_gold: 'respostas conhecidas', gold_accuracy: 'acurácia nelas',
    session_id: 'sessão', difficulty: 'dificuldade', version: 'versão', open: 'abertas', disputed: 'disputadas', settled: 'resolvidas',
  },
};
const words = WORDS[(localStorage.getItem('language') ?? navigator.language).startsWith('pt') ? 'pt' : 'en'];

function table(name, rows) {
  const title = document.createElement('h2'), wide = document.createElement('div'), made = document.createElement('table');
  title.textContent = words[name];
  wide.className = 'wide';
  wide.tabIndex = 0; // what does not fit is scrolled to by keys, too
  wide.role = 'region';
  wide.ariaLabel = words[name];
  wide.append(rows.length ? made : words.none);
  const head = made.createTHead().insertRow();
  for (const [column, value] of Object.entries(rows[0] ?? {})) {
    const cell = document.createElement('th');
    if (typeof value !== 'string') cell.className = 'number';
    cell.scope = 'col';
    cell.textContent = words[column];
    head.append(cell);
  }
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const value of Object.values(row)) {
      const cell = line.insertCell();
      if (typeof value !== 'string') cell.className = 'number';
      cell.textContent = value === null ? '·' : typeof value === 'string' ? value.slice(0, 12) : value;
    }
  }
  return [title, wide];
}

document.documentElement.lang = words === WORDS.pt ? 'pt' : 'en';
document.getElementById('title').textContent = words.title;
const answer = await fetch('/labels/v1/agreement').catch(() => null);
if (answer?.status === 401) location.assign('/sign-in?next=/labels/agreement');
else if (!answer?.ok) document.getElementById('said').textContent = words.failed;
else {
  const found = await answer.json();
  document.getElementById('note').textContent = words.note;
  const versions = Object.entries(found.by_instruction).map(([version, row]) => ({ version, ...row }));
  document.getElementById('tables').append(
    ...table('backlog', [found.backlog]), ...table('overall', [found.overall]), ...table('by_instruction', versions),
    ...table('annotators', found.annotators), ...table('pairs', found.pairs), ...table('hardest', found.hardest),
  );
}
