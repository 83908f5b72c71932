// Tables of the class `sortable`: a click on a heading sorts by its numbers, else its text; a field above keeps the rows that have its words.
const tables = [];
for (const table of document.querySelectorAll('table.sortable')) {
  const [head, ...rows] = table.rows;
  const field = document.createElement('input');
  field.type = 'search';
  field.placeholder = 'filter rows, e.g. hopper SNIP 95';
  field.setAttribute('aria-label', 'filter rows');
  table.parentElement.before(field);
  const filter = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  };
  field.addEventListener('input', filter);
  const value = (row, column) => {
    const text = row.cells[column].textContent.replace(/,/g, '');
    const number = /^\[?[+-]?[0-9.]/.test(text) ? parseFloat(text.replace('[', '')) : NaN;
    return Number.isNaN(number) ? text : number;
  };
  [...head.cells].forEach((cell, column) => {
    cell.tabIndex = 0;
    const sort = () => {
      const down = cell.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
      for (const other of head.cells) other.removeAttribute('aria-sort');
      cell.setAttribute('aria-sort', down === 1 ? 'ascending' : 'descending');
      const before = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) * down : typeof a === 'number' ? -1 : 1;
      rows.sort((a, b) => before(value(a, column), value(b, column))).forEach(row => row.parentElement.append(row));
    };
    cell.addEventListener('click', sort);
    cell.addEventListener('keydown', event => { if (event.key === 'Enter') sort(); });
  });
  // A heading's text, and how many before it have the same.
  const named = column => {
    const text = head.cells[column].textContent;
    return [text, [...head.cells].slice(0, column).filter(cell => cell.textContent === text).length];
  };
  tables.push({
    kept: () => ({ words: field.value, focus: document.activeElement === field,
      sorted: [...head.cells].map((cell, column) => [...named(column), cell.getAttribute('aria-sort')]).find(each => each[2]) }),
    restore: kept => {
      field.value = kept.words;
      filter();
      const [text, number, order] = kept.sorted ?? [], cell = [...head.cells].filter(each => each.textContent === text)[number];
      for (let clicks = order === 'descending' ? 2 : 1; cell && clicks > 0; clicks--) cell.click();
      if (kept.focus) field.focus({ preventScroll: true });
    },
  });
}

// A page that is served while its sweep goes on: loaded anew when the server has another version, as sorted, filtered and unfolded as it was.
if ('live' in document.body.dataset) {
  const folds = [...document.querySelectorAll('details')], before = JSON.parse(sessionStorage.getItem('winnow') || 'null');
  if (before) {
    before.tables.forEach((kept, number) => tables[number]?.restore(kept));
    before.open.forEach((open, number) => { if (folds[number]) folds[number].open = open; });
    scrollTo(0, before.top);
    sessionStorage.removeItem('winnow');
  }
  setInterval(async () => {
    const answer = await fetch('/', { method: 'HEAD', cache: 'no-store' }).catch(() => null);
    document.body.dataset.server = answer?.ok ? 'on' : 'off';
    if (answer?.ok && answer.headers.get('ETag') !== `"${document.body.dataset.live}"`) {
      const kept = { tables: tables.map(each => each.kept()), open: folds.map(each => each.open), top: scrollY };
      sessionStorage.setItem('winnow', JSON.stringify(kept));
      location.reload();
    }
  }, 2000);
}
