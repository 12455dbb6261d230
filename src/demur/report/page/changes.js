// What changed: the queries whose verdict is another one under the last prompt than under the one
// before it, the user's own first, and of those the ones that are wrong now.
const FEW = 8;

function changesOf(number) {
  const last = DATA[number].conditions.length - 1;
  const found = [];
  DATA[number].queries.forEach((query, place) => {
    const [before, after] = [last - 1, last].map(condition => {
      const given = ANSWERS[number][place].get(condition) || [];
      const judged = given.filter(one => one.verdict !== null);
      return judged.length ? mostOf(judged) : null;
    });
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
    const found = this.subject.conditions.length > 1 ? changesOf(this.number) : [];
    place.hidden = !found.length;
    if (!found.length) return;
    const own = found.filter(one => one.own);
    const groups = own.length && own.length < found.length
      ? [['Your own queries', own], ['All other queries', found.filter(one => !one.own)]]
      : [[own.length ? 'Your own queries' : '', found]];
    place.append(...groups.flatMap(([title, changes]) => this.group(title, changes)));
  }

  group(title, all) {
    const [before, after] = this.subject.conditions.slice(-2);
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
    const [first, second] = this.subject.conditions.slice(-2);
    return element('li', {},
      element('button', {
        type: 'button', class: 'link', on: { click: () => pinQuery(this.number, place) },
      }, shortened(text, 300)),
      element('p', { class: 'meta' },
        `${[label, category || set].filter(Boolean).join(', ')}. `,
        element('span', { class: 'together' }, `${shortened(first, 30)}: `, chip(before, label)),
        ' \u2192 ',
        element('span', { class: 'together' }, `${shortened(second, 30)}: `, chip(after, label))));
  }
}
