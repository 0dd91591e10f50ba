import { type Node, parseTree } from 'jsonc-parser';

/** A JSON object as the texts of its members: what this release does not understand stays the text that it is. */
export type Members = ReadonlyMap<string, string>;

/** Undefined for what is no JSON object. */
export function readMembers(text: string): Members | undefined {
  const node = parse(text);
  if (node?.type !== 'object') return undefined;
  const members = new Map<string, string>();
  for (const { children: [name, value] = [] } of node.children ?? []) if (name && value) members.set(String(name.value), textOf(text, value));
  return members;
}

/** The entries of a JSON array; undefined for what is none. */
export function readEntries(text: string | undefined): readonly string[] | undefined {
  const node = text === undefined ? undefined : parse(text);
  return text !== undefined && node?.type === 'array' ? (node.children ?? []).map((child) => textOf(text, child)) : undefined;
}

export function writeMembers(members: Iterable<readonly [string, string]>): string {
  return `{${[...members].map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(',')}}`;
}

export function writeEntries(texts: readonly string[]): string {
  return `[${texts.join(',')}]`;
}

function parse(text: string): Node | undefined {
  const errors: [] = [];
  const node = parseTree(text, errors, { disallowComments: true, allowTrailingComma: false });
  return errors.length === 0 ? node : undefined;
}

function textOf(text: string, { offset, length }: Node): string {
  return text.slice(offset, offset + length);
}
