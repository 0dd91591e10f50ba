import { CrossfadeError } from '../errors.js';
import type { AskedTokens } from './command.js';

/** The one audience that is asked for, by `audience` or `resource` (RFC 8693, section 2.1). Undefined: none is. */
export function chooseTarget({ targets: asked }: Pick<AskedTokens, 'targets'>, targets: ReadonlySet<string>): string | undefined {
  const [first] = asked;
  if (asked.some((target) => target !== first || !targets.has(target))) throw new CrossfadeError('invalid_target');
  return first;
}

/** What is asked for can be narrowed, never extended (law 2). Undefined: nothing is asked for. */
export function narrowScope({ scope: asked }: Pick<AskedTokens, 'scope'>, has: readonly string[]): readonly string[] | undefined {
  if (asked === undefined) return undefined;
  const wanted = [...new Set(asked.split(' ').filter((token) => token !== ''))];
  // Only spaces: a parameter without a value counts as omitted.
  if (wanted.length === 0) return undefined;
  if (wanted.some((token) => !has.includes(token))) throw new CrossfadeError('invalid_scope');
  return wanted;
}
