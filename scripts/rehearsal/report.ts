import { type Second, type StepCounts, totalOf, type ViolationNote } from './ledger.js';

export interface Report {
  readonly seed: number;
  readonly clients: number;
  /** What it ran on, and which revision. */
  readonly machine: string;
  readonly seconds: number;
  readonly passed: boolean;
  readonly steps: readonly StepCounts[];
  readonly perSecond: readonly Second[];
  readonly violations: readonly ViolationNote[];
}

const HEADS = ['step or fault', 'requests', 'lockouts', 'wrong principals', 'stale logins', '5xx', 'worst recovery'] as const;

function cellsOf(step: Omit<StepCounts, 'from' | 'until' | 'fault'>): string[] {
  const { title, requests, lockouts, wrongPrincipals, staleLogins, serverErrors, worstRecoveryMs } = step;
  const figures = [requests, lockouts, wrongPrincipals, staleLogins, serverErrors].map((figure) => figure.toLocaleString('en-US'));
  return [title, ...figures, worstRecoveryMs === 0 ? '' : `${(worstRecoveryMs / 1000).toFixed(1)} s`];
}

/** The table that the drill ends with. */
export function toTable({ steps }: Pick<Report, 'steps'>): string {
  const rows = [
    [...HEADS],
    ...steps.map((step) => cellsOf({ ...step, title: step.fault ? `! ${step.title}` : step.title })),
    cellsOf({ title: 'all', ...totalOf(steps) }),
  ];
  const widths = HEADS.map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  return rows.map((row) => row.map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join('  ')).join('\n');
}

/** The sentence under the table. */
export function verdictOf({ passed, steps, seed }: Pick<Report, 'passed' | 'steps' | 'seed'>): string {
  const { lockouts, wrongPrincipals, staleLogins, requests } = totalOf(steps);
  if (passed)
    return `Passed, seed ${seed}: nobody of ${requests.toLocaleString('en-US')} requests was locked out, taken for somebody else, or let in after a logout.`;
  return `FAILED, seed ${seed}: ${lockouts} lockouts, ${wrongPrincipals} wrong principals, ${staleLogins} stale logins. The same again: scripts/drill --seed ${seed}`;
}

const WIDTH = 1120;
const HEIGHT = 300;
const TOP = 24;

/** One file that needs no other: the picture, the table, what went wrong. */
export function toHtml(report: Report): string {
  const rows = report.steps.map((step) => `<tr${step.fault ? ' class="fault"' : ''}>${htmlCells(cellsOf(step))}</tr>`).join('\n');
  const all = `<tr class="all">${htmlCells(cellsOf({ title: 'all', ...totalOf(report.steps) }))}</tr>`;
  const wrong = report.violations
    .map(({ at, step, kind, told }) => `<li>${at} s, ${escapeHtml(step)}: <b>${kind}</b>: ${escapeHtml(told)}</li>`)
    .join('\n');
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Crossfade drill, seed ${report.seed}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #17202b; background: #fff; }
h1 { font-size: 1.4rem; margin: 0; } .good { color: #187a41; } .bad { color: #b3261e; } p { margin: .3rem 0 1rem; color: #5a6675; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid #dde2e9; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } .fault td:first-child::before { content: "⚡ "; } .all td { font-weight: 650; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: #5a6675; }
.session { fill: #d98a1f; } .jwt { fill: #2563c9; } .unavailable { fill: #b3261e; } .band { fill: #f1f3f6; } .band.fault { fill: #fdecea; } .violation { fill: #7a0012; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin: 0 .35rem 0 1rem; vertical-align: -1px; }
</style></head><body>
<h1 class="${report.passed ? 'good' : 'bad'}">${escapeHtml(verdictOf(report))}</h1>
<p>${report.clients.toLocaleString('en-US')} clients for ${Math.round(report.seconds)} seconds. ${escapeHtml(report.machine)}.</p>
<p class="key"><i style="background:#2563c9"></i>answered by token <i style="background:#d98a1f"></i>answered by session <i style="background:#b3261e"></i>5xx, tried again later <i style="background:#fdecea"></i>a fault</p>
${timeline(report)}
<table><thead><tr>${HEADS.map((head) => `<th scope="col">${head}</th>`).join('')}</tr></thead><tbody>
${rows}
${all}
</tbody></table>
${wrong === '' ? '' : `<h2>What went wrong</h2><ul>${wrong}</ul>`}
</body></html>
`;
}

function htmlCells(cells: readonly string[]): string {
  return cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join('');
}

/** Requests over time by credential, behind them the steps and faults. */
function timeline({ steps, perSecond, seconds }: Report): string {
  const x = (at: number) => (WIDTH * at) / Math.max(1, seconds);
  const most = Math.max(1, ...perSecond.map((one) => one.session + one.jwt + one.unavailable));
  const y = (count: number) => ((HEIGHT - TOP) * count) / most;
  const bands = steps.map(({ from, until, fault, title }, at) => {
    const width = Math.max(1, x(until) - x(from));
    const shade = fault ? 'band fault' : at % 2 === 0 ? 'band' : 'none';
    const rect = shade === 'none' ? '' : `<rect class="${shade}" x="${x(from).toFixed(1)}" y="0" width="${width.toFixed(1)}" height="${HEIGHT}"/>`;
    return `${rect}<text transform="translate(${(x(from) + 12).toFixed(1)} ${HEIGHT + 8}) rotate(38)">${escapeHtml(title)}</text>`;
  });
  const bars = perSecond.map((one, at) => {
    let base = HEIGHT;
    return (['jwt', 'session', 'unavailable'] as const)
      .map((kind) => {
        const height = y(one[kind]);
        base -= height;
        return height === 0
          ? ''
          : `<rect class="${kind}" x="${x(at).toFixed(1)}" y="${base.toFixed(1)}" width="${(x(1) + 0.3).toFixed(1)}" height="${height.toFixed(1)}"/>`;
      })
      .concat(one.violations > 0 ? `<circle class="violation" cx="${x(at + 0.5).toFixed(1)}" cy="${TOP / 2}" r="5"/>` : '')
      .join('');
  });
  const label = `<text x="4" y="14">${most.toLocaleString('en-US')} answers a second</text>`;
  return `<svg viewBox="0 0 ${WIDTH + 90} ${HEIGHT + 150}" role="img" aria-label="Answers over time by credential, with steps and faults">${bands.join('')}${bars.join('')}${label}</svg>`;
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
