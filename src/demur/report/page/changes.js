// What changed: the queries whose verdict is another one under one prompt than under another, the
// user's own first, and of those the ones that are wrong now.
const FEW = 8;

function changesOf(number, compared) {
  const found = [], { queries, use } = DATA[number];
  queries.forEach((query, place) => {
    if (use && query[5] !== use) return;
    const [before, after] = compared.map(one => verdictUnder(ANSWERS[number][place], one));
    if (before === null || after === null) return;
    const outcome = outcomeOf(after, query[1]);
    const moved = before !== after && outcomeOf(before, query[1]) !== outcome;
    found.push({ place, before, after, outcome: moved ? outcome : '', changed: before !== after, own: query[4] });
  });
  return found;
}

function countIn(changes, outcome) {
  return changes.filter(one => one.outcome === outcome).length;
}

class Changes {
  constructor(place) {
    this.number = Number(place.dataset.subject);
    this.subject = DATA[this.number];
    this.compared = [...this.subject.compared];
    this.drawn = element('div');
    if (this.subject.conditions.length < 2) return;
    place.hidden = !changesOf(this.number, this.compared).length;
    if (this.subject.conditions.length > 2) place.append(this.choice());
    place.append(this.drawn);
    this.show();
  }

  // Which prompts are compared, where there are more than two.
  choice() {
    const boxes = ['from', 'to'].map((name, side) => element('label', {}, name,
      element('select', {
        class: `compared-${name}`,
        on: { change: event => { this.compared[side] = Number(event.target.value); this.show(); } },
      }, ...this.subject.conditions.map((title, place) => element('option', {
        value: place, selected: place === this.compared[side],
      }, shortened(title, 40))))));
    return element('div', { class: 'controls' }, ...boxes);
  }

  show() {
    const found = changesOf(this.number, this.compared);
    const own = found.filter(one => one.own);
    const groups = own.length && own.length < found.length
      ? [['Your own queries', own], ['All other queries', found.filter(one => !one.own)]]
      : [[own.length ? 'Your own queries' : '', found]];
    this.drawn.replaceChildren(...groups.flatMap(([title, changes]) => this.group(title, changes)));
  }

  group(title, all) {
    const [before, after] = this.compared.map(one => this.subject.conditions[one]);
    const changes = all.filter(one => one.changed)
      .sort((one, other) => this.order(one) - this.order(other));
    const right = countIn(changes, 'right'), wrong = countIn(changes, 'wrong');
    const parts = [`${right} right now and wrong before`, `${wrong} wrong now and right before`];
    const rest = changes.length - right - wrong;
    if (rest) parts.push(`${rest} neither`);
    const told = changes.length
      ? `${changes.length} of ${all.length} changed from ${before} to ${after}: ${parts.join(', ')}.`
      : `None of ${all.length} changed from ${before} to ${after}.`;
    const list = element('ul', { class: 'changes' },
      ...changes.slice(0, FEW).map(one => this.draw(one)));
    const heading = title ? [element('h3', {}, title)] : [];
    const made = [...heading, element('p', {}, told), list];
    if (changes.length > FEW) {
      const paper = onPaper(changes.length - FEW);
      made.push(element('button', {
        type: 'button', class: 'all-changes',
        on: {
          click: event => {
            list.append(...changes.slice(FEW).map(one => this.draw(one)));
            event.target.remove();
            paper.remove();
          },
        },
      }, `Show all ${changes.length}`), paper);
    }
    return made;
  }

  order(change) {
    return ['wrong', 'right', ''].indexOf(change.outcome);
  }

  draw({ place, before, after }) {
    const [text, label, category, set] = this.subject.queries[place];
    const names = [label, category || set].filter(Boolean).join(', ');
    const [first, second] = this.compared.map(one => this.subject.conditions[one]);
    return element('li', {},
      element('button', {
        type: 'button', class: 'link', on: { click: () => pinQuery(this.number, place) },
      }, shortened(text, 300)),
      element('p', { class: 'meta' },
        names && `${names}. `,
        element('span', { class: 'together' }, `${shortened(first, 30)}: `, chip(before, label)),
        ' \u2192 ',
        element('span', { class: 'together' }, `${shortened(second, 30)}: `, chip(after, label))));
  }
}
