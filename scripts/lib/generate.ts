import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { configSchema } from '../../src/config/schema.js';

/**
 * Makes what follows from the config schema: `schema` writes the JSON Schema for editors into dist, `docs` the page
 * docs/configuration.md; `--check` fails where that page is stale.
 */
const PAGE = new URL('../../docs/configuration.md', import.meta.url);
const SCHEMA = new URL('../../dist/config.schema.json', import.meta.url);

/** What is read of a JSON Schema. */
const nodeSchema = z.object({
  type: z.string().optional(),
  description: z.string().optional(),
  default: z.unknown().optional(),
  enum: z.array(z.unknown()).optional(),
  required: z.array(z.string()).optional(),
  minimum: z.number().optional(),
  maximum: z.number().optional(),
  get properties() {
    return z.record(z.string(), nodeSchema).optional();
  },
  get items() {
    return nodeSchema.optional();
  },
  get anyOf() {
    return z.array(nodeSchema).optional();
  },
});
type Node = z.output<typeof nodeSchema>;

const jsonSchema = z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' });

const [task] = process.argv.slice(2);
if (task === 'schema') {
  mkdirSync(new URL('.', SCHEMA), { recursive: true });
  writeFileSync(SCHEMA, `${JSON.stringify(jsonSchema, null, 2)}\n`);
} else if (task === 'docs') {
  writeFileSync(PAGE, page());
} else if (readFileSync(PAGE, 'utf8') !== page()) {
  process.stderr.write(`${fileURLToPath(PAGE)} is stale: npm run docs\n`);
  process.exitCode = 1;
}

function page(): string {
  return [
    '# Configuration',
    '',
    '<!-- Made from src/config/schema.ts by `npm run docs`; `npm run check` fails when it is stale. -->',
    '',
    'One YAML or JSON file for `crossfade serve`, and the same object for `createBridge`. `${VAR}` takes an environment variable.',
    'Relative paths are relative to the file. A setting whose name ends in `File` names a file that holds a secret; the secret itself never',
    'stands in the configuration. All problems are reported at once, each with its path. `crossfade init` writes a commented file, and',
    '`crossfade check` says what is wrong with it.',
    '',
    'Editors check and complete the file with its JSON Schema, `crossfade-auth/config.schema.json`:',
    '',
    '```yaml',
    '# yaml-language-server: $schema=./node_modules/crossfade-auth/dist/config.schema.json',
    '```',
    '',
    '| setting | values | default | |',
    '| --- | --- | --- | --- |',
    ...rows(nodeSchema.parse(jsonSchema), ''),
    '',
  ].join('\n');
}

function rows(node: Node, at: string): string[] {
  return Object.entries(node.properties ?? {}).flatMap(([name, member]) => {
    const path = at === '' ? name : `${at}.${name}`;
    const inner = member.items?.properties ? member.items : member.properties ? member : undefined;
    const innerPath = member.items?.properties ? `${path}[]` : path;
    const row = `| \`${innerPath}\` | ${values(member)} | ${defaultOf(member, node.required?.includes(name) ?? false)} | ${member.description ?? ''} |`;
    const bare = inner !== undefined && member.description === undefined && member.items === undefined;
    return [...(bare ? [] : [row]), ...(inner ? rows(inner, innerPath) : [])];
  });
}

function values(node: Node): string {
  if (node.enum) return node.enum.map((value) => `\`${String(value)}\``).join(', ');
  if (node.anyOf) return [...new Set(node.anyOf.map(values))].join(' or ');
  if (node.type === 'array') return node.items?.properties ? 'list' : `list of ${node.items ? values(node.items) : 'values'}`;
  if (node.type === 'object') return node.properties ? 'map' : 'map of strings';
  const bounds =
    node.minimum !== undefined && node.maximum !== undefined && node.maximum < Number.MAX_SAFE_INTEGER ? ` ${node.minimum} to ${node.maximum}` : '';
  return `${node.type ?? 'any'}${bounds}`;
}

function defaultOf(node: Node, required: boolean): string {
  if (node.default !== undefined && !(node.properties && JSON.stringify(node.default) === '{}')) return `\`${JSON.stringify(node.default)}\``;
  return required ? '**required**' : '';
}
