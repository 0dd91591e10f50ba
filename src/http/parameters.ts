import { CrossfadeError } from '../errors.js';
import type { Form } from './form.js';

/** The one audience that is asked for, by `audience` or `resource` (RFC 8693, section 2.1). Undefined: none is. */
export function readTarget(form: Form, targets: ReadonlySet<string>): string | undefined {
  const asked = ['audience', 'resource'].flatMap((name) => form.get(name) ?? []);
  const [first] = asked;
  if (asked.some((target) => target !== first || !targets.has(target))) throw new CrossfadeError('invalid_target');
  return first;
}

/** What is asked for can be narrowed, never extended (law 2). Undefined: nothing is asked for. */
export function readScope(form: Form, has: readonly string[]): readonly string[] | undefined {
  const asked = form.get('scope');
  if (asked === undefined) return undefined;
  const wanted = [...new Set(asked.split(' ').filter((token) => token !== ''))];
  // Only spaces: a parameter without a value counts as omitted.
  if (wanted.length === 0) return undefined;
  if (wanted.some((token) => !has.includes(token))) throw new CrossfadeError('invalid_scope');
  return wanted;
}
