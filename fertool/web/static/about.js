// The panel about the page: what it is for and not for, the model, licenses.

import { readFile } from './assets.js';

/** Fill the panel and let its buttons open and close it. */
export function prepareAbout(settings) {
  const dialog = document.getElementById('about');
  const facts = document.getElementById('facts');
  for (const [name, value] of settings.facts) {
    const term = document.createElement('dt');
    term.textContent = name;
    const description = document.createElement('dd');
    description.textContent = value;
    facts.append(term, description);
  }
  document.getElementById('about-open').addEventListener('click', () => dialog.showModal());
  document.getElementById('about-close').addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', (event) => {
    // The dialog itself is its backdrop; what is in it fills it.
    if (event.target === dialog) dialog.close();
  });
  const licenses = document.getElementById('licenses');
  licenses.addEventListener('toggle', () => showNotices(licenses), { once: true });
}

async function showNotices(licenses) {
  const place = licenses.querySelector('pre');
  try {
    place.textContent = new TextDecoder().decode(await readFile('notices.txt.gz'));
  } catch {
    place.textContent = 'The texts could not be read: see notices.txt.gz beside this page.';
  }
}
