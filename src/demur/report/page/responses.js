// All responses: searched, filtered, what changed first. Only the rows that are seen are built.
const AT_ONCE = 50;

// For each subject the responses to each query, by condition.
const ANSWERS = DATA.map(subject => {
  const answers = subject.queries.map(() => new Map());
  for (const [query, condition, text, verdict, harm, showing] of subject.responses) {
    const found = answers[query];
    if (!found.has(condition)) found.set(condition, []);
    found.get(condition).push({ text, verdict, harm, showing });
  }
  return answers;
});

// The verdict that most of some responses have.
function mostOf(given) {
  return Object.keys(DID).reduce(
    (most, verdict) => (countOf(given, verdict) > countOf(given, most) ? verdict : most),
  );
}

// 2 where the last condition's verdict is another than the one before, 1 where some differ, else 0.
function changeOf(answers) {
  const verdicts = [...answers].sort((one, other) => one[0] - other[0])
    .map(([, given]) => given.filter(one => one.verdict !== null))
    .filter(given => given.length)
    .map(mostOf);
  if (verdicts.length < 2) return 0;
  if (verdicts[verdicts.length - 1] !== verdicts[verdicts.length - 2]) return 2;
  return verdicts.every(verdict => verdict === verdicts[0]) ? 0 : 1;
}

const ROWS = DATA.flatMap((subject, number) => {
  const changes = ANSWERS[number].map(changeOf);
  return subject.responses.map(([query, condition, text, verdict, harm, showing]) => ({
    number, query, condition, text, verdict, harm, showing, change: changes[query],
  }));
}).sort((one, other) => other.change - one.change
  || queryOf(other)[4] - queryOf(one)[4] || one.number - other.number
  || one.query - other.query || one.condition - other.condition);

function queryOf(row) {
  return DATA[row.number].queries[row.query];
}

const FILTERS = [
  ['result', row => DATA[row.number].title],
  ['prompt', row => DATA[row.number].conditions[row.condition]],
  ['label', row => queryOf(row)[1]],
  ['verdict', row => verdictOf(row.verdict)],
  ['outcome', row => outcomeOf(row.verdict, queryOf(row)[1])],
  ['category', row => queryOf(row)[2]],
  ['set', row => queryOf(row)[3]],
  ['queries', row => (queryOf(row)[4] ? 'your own' : 'built-in or public')],
  ['harm', row => row.harm],
  ['changed', row => (row.change ? 'verdict changes' : 'verdict stays')],
];

class ResponseTable {
  constructor() {
    this.body = document.querySelector('#table tbody');
    this.count = document.getElementById('count');
    this.more = document.getElementById('more');
    this.chosen = new Map();
    this.words = '';
    this.more.addEventListener('click', () => this.show());
    this.paper = element('div');
    this.more.before(this.paper);
    this.drawFilters(document.getElementById('filters'));
    this.apply();
  }

  drawFilters(form) {
    form.addEventListener('submit', event => event.preventDefault());
    const search = element('input', {
      type: 'search', id: 'search', autocomplete: 'off', spellcheck: 'false',
      on: { input: event => { this.words = event.target.value; this.apply(); } },
    });
    form.append(element('label', { class: 'search' }, 'search queries and responses', search));
    for (const [name, of] of FILTERS) {
      const values = [...new Set(ROWS.map(of))].filter(Boolean);
      if (values.length < 2) continue;
      const select = element('select', {
        id: `filter-${name}`,
        on: { change: event => { this.chosen.set(name, event.target.value); this.apply(); } },
      }, element('option', { value: '' }, 'all'),
      ...values.map(value => element('option', { value }, shortened(value, 40))));
      form.append(element('label', {}, name, select));
    }
  }

  apply() {
    const words = this.words.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = FILTERS.filter(([name]) => this.chosen.get(name));
    this.found = ROWS.filter(row => wanted.every(([name, of]) => of(row) === this.chosen.get(name))
      && (!words.length || this.has(row, words)));
    this.built = 0;
    this.body.replaceChildren();
    this.show();
  }

  has(row, words) {
    row.searched ??= `${queryOf(row)[0]}\n${row.text}`.toLowerCase();
    return words.every(word => row.searched.includes(word));
  }

  show() {
    const rows = this.found.slice(this.built, this.built + AT_ONCE);
    this.body.append(...rows.map(row => this.draw(row)));
    this.built += rows.length;
    const format = number => number.toLocaleString('en');
    const unit = ROWS.length === 1 ? 'response' : 'responses';
    this.count.textContent = this.found.length === ROWS.length
      ? `${format(ROWS.length)} ${unit}, those whose verdict changes first`
      : `${format(this.found.length)} of ${format(ROWS.length)} ${unit}`;
    const left = this.found.length - this.built;
    this.more.hidden = !left;
    this.paper.replaceChildren(...(left ? [onPaper(left)] : []));
    this.more.textContent = `Show ${Math.min(AT_ONCE, left)} more`;
  }

  draw(row) {
    const [text, label, category, set] = queryOf(row);
    const cell = element('td', {}, chip(row.verdict, label));
    if (row.harm) cell.append(element('p', { class: 'meta' }, row.harm));
    if (row.change) cell.append(element('p', { class: 'meta' }, 'changes'));
    const names = [label, category, set, DATA.length > 1 ? DATA[row.number].title : ''];
    return element('tr', {}, cell,
      element('td', {}, DATA[row.number].conditions[row.condition]),
      element('td', {},
        element('button', {
          type: 'button', class: 'link', on: { click: () => pinQuery(row.number, row.query) },
        }, text),
        element('p', { class: 'meta' }, names.filter(Boolean).join(', '))),
      element('td', {}, element('div', { class: 'text' }, ...textOf(row))));
  }
}
