import { readFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { SESSION_FORMATS } from '../config/session-formats.js';
import {
  MEASURED_RECORD,
  parseBasePath,
  parseDuration,
  parseFormat,
  parseStage,
  parseTime,
  parseWhy,
  positiveInteger,
  someText,
} from './arguments.js';
import { print } from './print.js';

// What a command needs is loaded when it runs: `--help` waits for none of it.

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));

const program = new Command('crossfade')
  .description('Moves a live product from Redis sessions to JWT and back, with nobody logged out.')
  .version(String(version))
  // One line that says what is wrong, and not a page.
  .showHelpAfterError(false);

program
  .command('serve')
  .description('run the bridge as a service: public and admin port')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .addOption(
    new Option('--log-level <level>', 'what is logged').choices(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
  )
  .option(
    '--force',
    'sign and write although a release is skipped, or although Redis holds what no secret of fleetSecretFile opens: that counts as junk',
  )
  .option('--why <text>', 'with --force: for the audit', parseWhy)
  .action(async (options) => await (await import('./serve.js')).serve(options));

program
  .command('init')
  .description('write a commented configuration, a key, a fleet secret and a flags file; nothing is overwritten')
  .argument('[directory]', 'where', '.')
  .option('--issuer <url>', "the app's own URL", 'http://localhost:8787')
  .option('--redis <url>', 'where Redis is', 'redis://127.0.0.1:6379/0')
  .option('--format <format>', `how the app writes its sessions: ${SESSION_FORMATS.join(', ')}`, parseFormat, 'koa-session')
  .option('--cookie <name>', "name of the app's session cookie; by default that of the format")
  .option('--subject <path>', 'where in the record the person is; by default user.id, or id with --format http')
  .option(
    '--base-path <path>',
    "what the bridge's own paths start with, where the app has /auth/token, /auth/logout or the like itself",
    parseBasePath,
  )
  .option('--client <id>', 'instead: make a secret for a confidential client, print it once, and keep its hash')
  .action(async (directory, options) => {
    const { init, initClient } = await import('./init.js');
    const lines = options.client === undefined ? init(directory, options) : initClient(directory, options.client);
    for (const line of lines) print.line(line);
  });

program
  .command('check')
  .description('say what is wrong with configuration, keys, flags and Redis, before a deployment does')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .option('--sample <n>', 'read up to N real sessions, change nothing, and say how many map to a principal', positiveInteger)
  .option('--cookie-value-file <file>', 'instead: whether the Cookie header in this file verifies, and which setting fits where it does not')
  .option('--redis <url>', 'sample this Redis instead: no configuration is needed')
  .option('--cookie <name>', "with --redis: name of the app's session cookie, for what is printed")
  .option('--key-prefix <prefix>', 'with --redis: what the keys of sessions start with', '')
  .option('--subject <path>', 'with --redis: where in the record the person is', 'user.id')
  .option('--tenant <path>', 'with --redis: where the tenant is')
  .option('--roles <path>', 'with --redis: where the roles are')
  .option('--scope <path>', 'with --redis: where the scope is')
  .option('--auth-time <path>', 'with --redis: where the time of the login is')
  .action(async (options) => {
    if (options.cookieValueFile !== undefined) process.exitCode = await (await import('./check-cookie.js')).checkCookie(options);
    else if (options.redis !== undefined)
      process.exitCode = await (await import('./sample.js')).sampleFromFlags({ ...options, sample: options.sample ?? 1000 });
    else if (options.sample !== undefined) process.exitCode = await (await import('./sample.js')).sampleFromConfig(options);
    else process.exitCode = await (await import('./check.js')).check(options);
  });

program
  .command('status')
  .description('the whole fleet on one page: stages with their reasons, clamps, keys, instances, the guardrail')
  .option('-w, --watch', 'again every 2 seconds, until interrupted')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (options) => await (await import('./status.js')).status(options));

program
  .command('explain')
  .description('explain the stage of a person and the answer they would get; or of a token or Cookie header on standard input')
  .option('--subject <id>', 'the person; without it, a credential is read from standard input')
  .option('--client <id>', 'the client that they come with')
  .option('--client-version <version>', 'its version')
  .option('--tenant <id>', 'the tenant that they are in')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (options) => await (await import('./explain.js')).explain(options));

program
  .command('what-if')
  .description('what the people of a cohort would be answered at a stage, by what they did in the last hour; nothing is changed')
  .requiredOption('--cohort <name>', 'the cohort; the name of a client stands for its people who are in no other cohort')
  .requiredOption('--stage <stage>', 'the stage that it would be at', parseStage)
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (options) => await (await import('./what-if.js')).whatIf(options));

program
  .command('size')
  .description("what so many sessions need of the bridge's own Redis: memory, commands a second, and whether one is enough")
  .requiredOption('--sessions <n>', 'sessions that tokens were made from and that may still live', positiveInteger)
  .requiredOption('--active <n>', 'of these, how many people come all the time', positiveInteger)
  .option('--record-bytes <n>', 'size of a session record', positiveInteger, MEASURED_RECORD)
  .option('-c, --config <file>', 'for the lives of tokens and the rate of nudges; without it the defaults')
  .option('--json', 'for programs')
  .action(async (options) => await (await import('./size.js')).size(options));

program
  .command('clamp')
  .description('hold a client, a cohort or everybody at a stage, at once and on every instance, whatever the flags say')
  .argument('<stage>', 'the highest that they may be at', parseStage)
  .option('--client <id>', 'a client with all its cohorts')
  .option('--cohort <name>', 'one cohort; the name of a client stands for its people who are in no other cohort')
  .option('--all', 'everybody')
  .option('--for <time>', 'how long, such as 90s, 30m, 2h or 1d; without it until it is released', parseDuration)
  .requiredOption('--why <text>', 'for the audit and the others on call; no names', parseWhy)
  .option('-y, --yes', 'do not ask, though there is a terminal')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs; does not ask')
  .action(async (stage, options) => {
    if (!(await (await import('./clamp.js')).clamp(stage, options))) process.exitCode = 1;
  });

program
  .command('release')
  .description('release a clamp, whether an operator or the guardrail has set it; or let an instance go on that is held')
  .argument('[id]', 'instead: the clamp that status shows with this id')
  .option('--instance <name>', 'instead: an instance that is held because it fails where others do not, as status names it')
  .option('--client <id>', 'as it was set')
  .option('--cohort <name>', 'as it was set')
  .option('--all', 'as it was set')
  .option('--why <text>', 'for the audit; no names', parseWhy)
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (id, options) => await (await import('./clamp.js')).release(id, options));

// A kid may begin with -, which looks like an option; a real one that is unknown is then one argument too many.
const keys = program.command('keys').description('signing keys: make, show, rotate, take out of use');

keys
  .command('generate')
  .description('make a key that signs as soon as its turn comes, in the key directory or on standard output')
  .option('--stdout', 'print it instead, for a secret store')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .action(async (options) => await (await import('./keys.js')).generate(options));

keys
  .command('list')
  .description('every key of the fleet, its phase, and what it waits for')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (options) => await (await import('./keys.js')).list(options));

keys
  .command('rotate')
  .description('write the next key and say how far the fleet is')
  .option('--at <time>', 'from when it signs, ISO 8601', parseTime)
  .option('--force', 'instead: let the key that waits sign, although an instance does not verify it')
  .option('--why <text>', 'with --force: for the audit', parseWhy)
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (options) => await (await import('./keys.js')).rotate(options));

keys
  .command('retire')
  .description('take a key out of use for good once nothing that it signed lives')
  .argument('<kid>', 'the kid, or its beginning; after -- where it begins with -c')
  .allowUnknownOption()
  .option('--why <text>', 'for the audit', parseWhy)
  .option('--force', 'also while tokens that it signed may live')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (kid, options) => await (await import('./keys.js')).retire(kid, options));

keys
  .command('revoke')
  .description('take a key that has leaked out of use: its tokens stop at once, and their holders refresh')
  .argument('<kid>', 'the kid, or its beginning; after -- where it begins with -c')
  .allowUnknownOption()
  .requiredOption('--why <text>', 'for the audit', parseWhy)
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (kid, options) => await (await import('./keys.js')).revoke(kid, options));

const secrets = program
  .command('secrets')
  .description('the fleet secret: rotating it, taking one out that has leaked; and the cookie secrets of the app');

secrets
  .command('add')
  .description('put a new fleet secret into fleetSecretFile; it writes once every live instance has it')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (options) => await (await import('./add-fleet-secret.js')).addSecret(options));

secrets
  .command('list')
  .description('the fleet secrets, who has them and what is written under each; and the cookie secrets of every entry')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (options) => await (await import('./secrets.js')).listSecrets(options));

secrets
  .command('finish')
  .description('take a fleet secret out of use for good, once nothing is left under it')
  .argument('<name>', 'as secrets list calls it')
  .option('--why <text>', 'for the audit', parseWhy)
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (name, options) => await (await import('./fleet-secrets.js')).finishSecret(name, options));

secrets
  .command('revoke')
  .description('take a fleet secret out of use that has leaked: families under it end, and their people exchange again')
  .argument('<name>', 'as secrets list calls it')
  .requiredOption('--why <text>', 'for the audit', parseWhy)
  .option('--force', 'also where live instances know this secret only: they are left out')
  .option('-y, --yes', 'do not ask, though there is a terminal')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs; does not ask')
  .action(async (name, options) => await (await import('./fleet-secrets.js')).revokeSecret(name, options));

secrets
  .command('drop')
  .description('let a cookie secret verify nothing any more, at once and on every instance, whatever their files say')
  .argument('<name>', 'as secrets list and status call it')
  .requiredOption('--why <text>', 'for the audit', parseWhy)
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs')
  .action(async (name, options) => await (await import('./secrets.js')).dropSecret(name, options));

program
  .command('end')
  .description('end all sessions and tokens of a person: a changed password, a ban')
  .requiredOption('--subject <id>', 'the person, as tokens name it in `sub`', someText)
  .requiredOption('--why <text>', 'for the audit; no names', parseWhy)
  .option('--tenant <id>', 'only of this tenant', someText)
  .option('--except-sid <sid>', 'the session that is left as it is')
  .option('--sweep', 'look through all records for sessions that tokens were never made from, and end those as well')
  .option('--per-second <n>', 'keys that the sweep looks at in a second, at most', positiveInteger, 2000)
  .option('--dry-run', 'say what would be ended, and end nothing')
  .option('--resume <state>', 'go on with a sweep that was interrupted, which has printed this')
  .option('-y, --yes', 'of all tenants, without a question')
  .option('-c, --config <file>', 'configuration', 'crossfade.yaml')
  .option('--json', 'for programs; asks nothing')
  .addHelpText('after', '\nExit status: 0 all ended, 2 failed, 3 ended but not all was looked through, 4 nobody of that name was ever seen')
  .action(async (options) => {
    process.exitCode = await (await import('./end.js')).end(options);
  });

// `crossfade … | head` closes the pipe: that is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

await program.parseAsync();
