#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command, InvalidArgumentError } from 'commander';
import { check } from './check.js';
import { end } from './end.js';
import { init, initClient } from './init.js';
import { print } from './print.js';
import { sampleFromConfig, sampleFromFlags } from './sample.js';
import { serve } from './serve.js';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));

const program = new Command('crossfade')
  .description('Moves a live product from Redis sessions to JWT and back, with nobody logged out.')
  .version(String(version))
  .showHelpAfterError();

program
  .command('serve')
  .description('run the bridge as a service: public and admin port')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--log-level <level>', 'trace, debug, info, warn, error, fatal or silent', 'info')
  .action(async (options) => await serve(options));

program
  .command('init')
  .description('write a commented configuration, a key, a fleet secret and a flags file; nothing is overwritten')
  .argument('[directory]', 'where', '.')
  .option('--issuer <url>', "the app's own URL", 'http://localhost:8787')
  .option('--redis <url>', 'where Redis is', 'redis://127.0.0.1:6379/0')
  .option('--cookie <name>', "name of the app's session cookie", 'koa.sess')
  .option('--subject <path>', 'where in the record the person is', 'user.id')
  .option('--client <id>', 'instead: make a secret for a confidential client, print it once, and keep its hash')
  .action((directory, options) => {
    const lines = options.client === undefined ? init(directory, options) : initClient(directory, options.client);
    for (const line of lines) print.line(line);
  });

program
  .command('check')
  .description('say what is wrong with configuration, keys, flags and Redis, before a deployment does')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .option('--sample <n>', 'read up to N real sessions, change nothing, and say how many map to a principal', positiveInteger)
  .option('--redis <url>', 'sample this Redis instead: no configuration is needed')
  .option('--cookie <name>', "with --redis: name of the app's session cookie", 'koa.sess')
  .option('--key-prefix <prefix>', 'with --redis: what the keys of sessions start with', '')
  .option('--subject <path>', 'with --redis: where in the record the person is', 'user.id')
  .option('--tenant <path>', 'with --redis: where the tenant is')
  .option('--roles <path>', 'with --redis: where the roles are')
  .option('--scope <path>', 'with --redis: where the scope is')
  .option('--auth-time <path>', 'with --redis: where the time of the login is')
  .action(async (options) => {
    if (options.redis !== undefined) process.exitCode = await sampleFromFlags({ ...options, sample: options.sample ?? 1000 });
    else if (options.sample !== undefined) process.exitCode = await sampleFromConfig(options);
    else process.exitCode = await check(options);
  });

program
  .command('end')
  .description('end all sessions and tokens of a person: a changed password, a ban')
  .requiredOption('--subject <id>', 'the person, as tokens name it in `sub`')
  .requiredOption('--why <text>', 'for the audit; no names')
  .option('--except-sid <sid>', 'the session that is left as it is')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (options) => await end(options));

function positiveInteger(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('a whole number from 1 on');
  return value;
}

// `crossfade … | head` closes the pipe: that is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

await program.parseAsync().catch((error: unknown) => {
  print.error(error instanceof Error ? error.message : 'something failed');
  process.exitCode = 2;
});
