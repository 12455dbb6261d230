// Pins, the theme, and the start of everything.
const MOST_PINS = 6;
const pinned = [];

function pinQuery(number, query) {
  const place = pinned.findIndex(one => one.number === number && one.query === query);
  if (place >= 0) pinned.splice(place, 1);
  pinned.unshift({ number, query });
  pinned.length = Math.min(pinned.length, MOST_PINS);
  drawPins();
  document.getElementById('pins').scrollIntoView({ block: 'nearest' });
}

function drawPins() {
  const list = document.getElementById('pinned-queries');
  document.getElementById('pins').hidden = !pinned.length;
  list.replaceChildren(...pinned.map((pin, place) => drawPin(pin, place)));
}

function drawPin({ number, query }, place) {
  const subject = DATA[number];
  const [text, label] = subject.queries[query];
  const answers = [...ANSWERS[number][query]].sort((one, other) => one[0] - other[0]);
  const columns = answers.map(([condition, given]) => element('div', {},
    element('h4', {}, `${subject.conditions[condition]}: ${rate(given)}`),
    element('div', { class: 'text' }, ...given.flatMap(one => [
      element('p', { class: 'text' }, chip(one.verdict, label), ' ', ...textOf(one)),
    ]))));
  const names = [...kindOf(subject.queries[query]), DATA.length > 1 ? subject.title : ''];
  return element('article', { class: 'pin' },
    element('div', { class: 'pin-head' },
      element('div', {}, element('h3', {}, text),
        element('p', { class: 'meta' }, names.filter(Boolean).join(', '))),
      element('button', { type: 'button', on: { click: () => unpin(place) } }, 'Unpin')),
    element('div', { class: 'answers' }, ...columns));
}

function rate(given) {
  const judged = given.filter(one => one.verdict !== null);
  if (given.length === 1 || !judged.length) return verdictOf(judged.length ? judged[0].verdict : null);
  const deflected = countOf(judged, 'deflects');
  return `refused ${countOf(judged, 'refuses')} of ${judged.length}${deflected ? `, deflected ${deflected}` : ''}`;
}

function unpin(place) {
  pinned.splice(place, 1);
  drawPins();
  // The button is gone: the keyboard goes on from the next one, or from the plot.
  const next = document.querySelector('.pin button') || document.querySelector('.plot svg');
  if (next) next.focus();
}

const THEMES = ['system', 'light', 'dark'];

function startTheme() {
  const button = document.getElementById('theme');
  let place = 0;
  button.addEventListener('click', () => {
    place = (place + 1) % THEMES.length;
    button.textContent = `Theme: ${THEMES[place]}`;
    if (place) document.documentElement.dataset.theme = THEMES[place];
    else delete document.documentElement.dataset.theme;
  });
}

startTheme();
for (const place of document.querySelectorAll('.scatter')) {
  new Scatter(place, Number(place.dataset.subject));
}
for (const place of document.querySelectorAll('.changed')) new Changes(place);
new ResponseTable();
