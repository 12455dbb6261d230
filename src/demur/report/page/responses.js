// All responses: searched, filtered, what changed first. Only the rows that are seen are built.
const AT_ONCE = 20;

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

// The verdict that most responses have under a condition; null where none has one.
function verdictUnder(answers, condition) {
  const judged = (answers.get(condition) || []).filter(one => one.verdict !== null);
  return judged.length ? mostOf(judged) : null;
}

// 2 where the verdicts under the two compared conditions differ, 1 where some differ, else 0.
function changeOf(answers, compared) {
  const [before, after] = compared.map(condition => verdictUnder(answers, condition));
  if (before !== null && after !== null && before !== after) return 2;
  const verdicts = [...answers.keys()].map(condition => verdictUnder(answers, condition));
  return new Set(verdicts.filter(verdict => verdict !== null)).size > 1 ? 1 : 0;
}

const ROWS = DATA.flatMap((subject, number) => {
  const changes = ANSWERS[number].map(answers => changeOf(answers, subject.compared));
  return subject.responses.map(([query, condition, text, verdict, harm, showing]) => ({
    number, query, condition, text, verdict, harm, showing, change: changes[query],
  }));
}).sort((one, other) => other.change - one.change
  || queryOf(other)[4] - queryOf(one)[4] || one.number - other.number
  || one.query - other.query || one.condition - other.condition);

function queryOf(row) {
  return DATA[row.number].queries[row.query];
}

// Each choice with what it goes by; their values are sorted, or in the order in which they come.
const FILTERS = [
  ['result', row => DATA[row.number].title, false],
  ['prompt', row => DATA[row.number].conditions[row.condition], false],
  ['label', row => queryOf(row)[1], true],
  ['verdict', row => verdictOf(row.verdict), true],
  ['outcome', row => outcomeOf(row.verdict, queryOf(row)[1]), true],
  ['use', row => queryOf(row)[5], true],
  ['set', row => queryOf(row)[3], true],
  ['category', row => queryOf(row)[2], true],
  ['queries', row => (queryOf(row)[4] ? 'your own' : 'built-in or public'), true],
  ['harm', row => row.harm, true],
  ['changed', row => (row.change ? 'verdict changes' : 'verdict stays'), true],
];

// How many responses there are to the queries of each use; empty where all have the same.
function byUse() {
  const counts = new Map();
  for (const row of ROWS) counts.set(queryOf(row)[5], (counts.get(queryOf(row)[5]) || 0) + 1);
  if (counts.size < 2) return '';
  const parts = [...counts].sort().map(([use, count]) => `${count.toLocaleString('en')} to ${use || 'other'} queries`);
  return ` (${parts.join(', ')})`;
}

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
    for (const [name, of, sorted] of FILTERS) {
      const values = [...new Set(ROWS.map(of))].filter(Boolean);
      if (values.length < 2) continue;
      if (sorted) values.sort((one, other) => one.localeCompare(other, 'en'));
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
      ? `${format(ROWS.length)} ${unit}${byUse()}, those whose verdict changes first`
      : `${format(this.found.length)} of ${format(ROWS.length)} ${unit}`;
    const left = this.found.length - this.built;
    this.more.hidden = !left;
    this.paper.replaceChildren(...(left ? [onPaper(left)] : []));
    this.more.textContent = `Show ${Math.min(AT_ONCE, left)} more`;
  }

  draw(row) {
    const [text] = queryOf(row), label = queryOf(row)[1];
    const cell = element('td', {}, chip(row.verdict, label));
    if (row.harm) cell.append(element('p', { class: 'meta' }, row.harm));
    if (row.change) cell.append(element('p', { class: 'meta' }, 'changes'));
    const names = [...kindOf(queryOf(row)), DATA.length > 1 ? DATA[row.number].title : ''];
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
