// Tables of the class `sortable`: a click on a heading sorts by its numbers, else its text; a field above keeps the rows that have its words.
for (const table of document.querySelectorAll('table.sortable')) {
  const [head, ...rows] = table.rows;
  const field = document.createElement('input');
  field.type = 'search';
  field.placeholder = 'filter rows, e.g. hopper SNIP 95';
  field.setAttribute('aria-label', 'filter rows');
  table.parentElement.before(field);
  field.addEventListener('input', () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
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
}
