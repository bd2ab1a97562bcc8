// Signs a person in, and goes on to the page that asked for it.

const WORDS = {
  401: 'The name or the password is wrong. · Nome ou senha incorretos.',
  429: 'Too many tries; wait a minute. · Tentativas demais; aguarde um minuto.',
};

document.querySelector('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const { name, password } = Object.fromEntries(new FormData(event.target));
  const answer = await fetch('/sign-in', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ name, password }),
  }).catch(() => null);
  if (answer?.ok) {
    const next = new URLSearchParams(location.search).get('next') ?? '';
    if (/^\/(?![/\\])/.test(next)) return location.assign(next); // on this server alone
    document.querySelector('form').hidden = true;
    document.querySelector('nav').hidden = false;
    document.querySelector('nav a').focus();
    return;
  }
  document.getElementById('said').textContent =
    WORDS[answer?.status] ?? 'The server does not answer. · O servidor não responde.';
});
