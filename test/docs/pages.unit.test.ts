import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { ERRORS } from '../../src/errors.js';
import { BEARER_REJECTIONS, SESSION_REJECTIONS } from '../../src/principal.js';
import { AUDIT_EVENTS, type AuditEvent, levelOf } from '../../src/telemetry/audit.js';

const ROOT = new URL('../../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, ROOT), 'utf8');

function rowsOf(page: string): string[][] {
  return [...page.matchAll(/^\| (.+) \|$/gm)].map(([, row]) => (row ?? '').split(' | '));
}

describe('the pages tell what the code does', () => {
  it('docs/errors.md lists every code with its status and meaning', () => {
    const listed = rowsOf(read('docs/errors.md')).filter(([, status]) => /^\d{3}$/.test(status ?? ''));
    expect(listed).toEqual(Object.entries(ERRORS).map(([code, { status, meaning }]) => [`\`${code}\``, String(status), meaning]));
  });

  it('docs/events.md lists every audit event with when it is written', () => {
    const listed = rowsOf(read('docs/events.md')).filter(([event]) => /^`\w+\.[\w-]+`$/.test(event ?? ''));
    expect(listed).toEqual(
      Object.keys(AUDIT_EVENTS)
        .filter((name): name is AuditEvent => name in AUDIT_EVENTS)
        .map((event) => [`\`${event}\``, event === 'signing.changed' ? 'as the state' : levelOf(event), AUDIT_EVENTS[event]]),
    );
  });

  it('docs/errors.md lists why a cookie or a bearer is none', () => {
    const page = read('docs/errors.md');
    const listed = rowsOf(page.slice(page.indexOf('## Why a credential is none'))).filter(([reason]) => reason?.startsWith('`'));
    expect(listed).toEqual(
      [...Object.entries(SESSION_REJECTIONS), ...Object.entries(BEARER_REJECTIONS)].map(([reason, meaning]) => [`\`${reason}\``, meaning]),
    );
  });

  it('every audit event is written somewhere', () => {
    const sources = readdirSync(new URL('src', ROOT), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts') && !name.endsWith('audit.ts'))
      .map((name) => read(`src/${name}`))
      .join('\n');
    for (const event of Object.keys(AUDIT_EVENTS)) expect(sources).toContain(`'${event}'`);
  });

  it('every link to a file of ours leads somewhere', () => {
    const pages = ['README.md', 'CONTRIBUTING.md', ...readdirSync(fileURLToPath(new URL('docs', ROOT))).map((name) => `docs/${name}`)];
    for (const page of pages.filter((name) => name.endsWith('.md'))) {
      for (const [, target = ''] of read(page).matchAll(/\]\((?!https?:)([^)#]+)/g)) {
        expect(existsSync(new URL(target, new URL(page, ROOT))), `${page} → ${target}`).toBe(true);
      }
    }
  });
});
