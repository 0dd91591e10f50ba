import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Extractor, ExtractorConfig, ExtractorLogLevel } from '@microsoft/api-extractor';

/**
 * Writes docs/api.md, the public names and their types as the emitted declarations have them; `--check` fails where that page is stale. A
 * change of the page is a change for those who use the package.
 */
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PAGE = join(ROOT, 'docs', 'api.md');

function reportOf(types: string, entry: string): string {
  const folder = join(types, 'report');
  const config = ExtractorConfig.prepare({
    configObject: {
      projectFolder: types,
      mainEntryPointFilePath: join(types, entry),
      compiler: {
        overrideTsconfig: {
          compilerOptions: {
            target: 'es2023',
            lib: ['es2024'],
            module: 'nodenext',
            strict: true,
            exactOptionalPropertyTypes: true,
            skipLibCheck: true,
            types: ['node'],
            typeRoots: [join(ROOT, 'node_modules', '@types')],
          },
          files: [entry],
        },
      },
      apiReport: { enabled: true, reportFolder: folder, reportTempFolder: folder, reportFileName: 'api', includeForgottenExports: true },
      newlineKind: 'lf',
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      messages: {
        compilerMessageReporting: { default: { logLevel: ExtractorLogLevel.Error } },
        extractorMessageReporting: { default: { logLevel: ExtractorLogLevel.None } },
        tsdocMessageReporting: { default: { logLevel: ExtractorLogLevel.None } },
      },
    },
    configObjectFullPath: join(types, 'api-extractor.json'),
    packageJsonFullPath: join(types, 'package.json'),
  });
  const { succeeded } = Extractor.invoke(config, { localBuild: true, messageCallback: silence });
  if (!succeeded) throw new Error(`the declarations of ${entry} cannot be read`);
  const [, code = ''] = /```ts\n([\s\S]*?)```/.exec(readFileSync(join(folder, 'api.api.md'), 'utf8')) ?? [];
  if (code === '') throw new Error(`the report of ${entry} is empty`);
  // What it says of comments is not of interest here.
  return code.replaceAll(/^ *\/\/ (?:@\w+|\(.*?\)|Warning:).*\n/gm, '').trim();
}

/** What goes wrong is thrown. */
function silence(message: { handled: boolean; logLevel: string; text: string }): void {
  if (message.logLevel === ExtractorLogLevel.Error) throw new Error(message.text);
  message.handled = true;
}

function page(): string {
  const types = mkdtempSync(join(tmpdir(), 'crossfade-api-'));
  try {
    execFileSync(join(ROOT, 'node_modules', '.bin', 'tsc'), ['-p', 'tsconfig.build.json', '--emitDeclarationOnly', '--outDir', types], { cwd: ROOT });
    const { name, version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
    writeFileSync(join(types, 'package.json'), JSON.stringify({ name, version, type: 'module' }));
    mkdirSync(join(types, 'report'));
    symlinkSync(join(ROOT, 'node_modules'), join(types, 'node_modules'));
    return [
      '# Public names',
      '',
      '<!-- Made from the declarations by `npm run docs`; `npm run check` fails when it is stale. -->',
      '',
      'What the package exports, and the types behind it. Everything else may change with any release.',
      '',
      '## `crossfade`',
      '',
      '```ts',
      reportOf(types, 'index.d.ts'),
      '```',
      '',
      '## `crossfade-auth/client`',
      '',
      '```ts',
      reportOf(types, 'client/index.d.ts'),
      '```',
      '',
    ].join('\n');
  } finally {
    rmSync(types, { recursive: true, force: true });
  }
}

const found = page();
if (!process.argv.includes('--check')) writeFileSync(PAGE, found);
else if (readFileSync(PAGE, 'utf8') !== found) {
  process.stderr.write(`${PAGE} is stale: npm run docs\n`);
  process.exitCode = 1;
}
