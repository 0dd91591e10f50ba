import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { provide } from '../../scripts/lib/programs.js';
import { readPhpSession } from '../../src/formats/php-serialization.js';

const php = provide('php', ['php-cli']);

/** What PHP itself writes for the array that `code` gives: by `serialize`, and by the session handler `php`. */
function written(code: string): { php: string; php_serialize: string } {
  const script = `
    session_id('x'); ini_set('session.save_path', sys_get_temp_dir()); ini_set('session.use_cookies', '0'); ini_set('session.cache_limiter', '');
    session_set_save_handler(new class implements SessionHandlerInterface {
      public function open($p, $n): bool { return true; } public function close(): bool { return true; }
      public function read($i): string { return ''; } public function write($i, $d): bool { return true; }
      public function destroy($i): bool { return true; } public function gc($m): int { return 0; }
    });
    session_start(); $_SESSION = ${code};
    echo bin2hex(session_encode()), ' ', bin2hex(serialize($_SESSION));`;
  const [variables = '', whole = ''] = execFileSync(php, ['-d', 'error_reporting=0', '-r', script]).toString().split(' ');
  return { php: Buffer.from(variables, 'hex').toString('latin1'), php_serialize: Buffer.from(whole, 'hex').toString('latin1') };
}

const EVERYTHING = `['n' => null, 'yes' => true, 'no' => false, 'i' => -42, 'big' => PHP_INT_MAX, 'd' => 0.1, 'e' => 1.5e-7, 'inf' => INF,
  's' => "Müller \\"x\\";|a:1:{", 'empty' => '', 'list' => ['a', ['b']], 'map' => ['x' => 1, 7 => 'seven'], 'none' => []]`;

describe('PHP sessions, as PHP itself writes them', () => {
  it.each(['php', 'php_serialize'] as const)('%s: every kind of value', (handler) => {
    expect(readPhpSession(written(EVERYTHING)[handler], handler)).toEqual({
      n: null,
      yes: true,
      no: false,
      i: -42,
      big: '9223372036854775807',
      d: 0.1,
      e: 1.5e-7,
      inf: Number.POSITIVE_INFINITY,
      s: 'Müller "x";|a:1:{',
      empty: '',
      list: ['a', ['b']],
      map: { x: 1, '7': 'seven' },
      none: [],
    });
    expect(readPhpSession(written('[]')[handler], handler)).toEqual({});
  });

  it.each([
    ['an object', "['user' => ['id' => 1], 'cart' => new ArrayObject([1])]"],
    ['an object within a list', "['user' => ['id' => 1], 'a' => [[new stdClass]]]"],
    ['a reference', "(function () { $s = ['user' => ['id' => 1]]; $s['again'] = &$s['user']; return $s; })()"],
    ['a member that would reach a prototype', "['user' => ['id' => 1], '__proto__' => ['admin' => true]]"],
    ['one called constructor', "['user' => ['id' => 1, 'constructor' => 1]]"],
    ['nesting without end', '(function () { $a = 1; for ($i = 0; $i < 50; $i++) $a = [$a]; return ["user" => $a]; })()'],
  ])('%s makes the whole session unreadable', (_what, code) => {
    const { php: variables, php_serialize: whole } = written(code);
    expect(variables).toContain('user');
    expect([readPhpSession(variables, 'php'), readPhpSession(whole, 'php_serialize')]).toEqual([undefined, undefined]);
  });

  it('every record that was cut, or in which one byte was changed, is read as what it says or not at all, and never throws', () => {
    const { php: variables, php_serialize: whole } = written(EVERYTHING);
    for (const [text, handler] of [
      [variables, 'php'],
      [whole, 'php_serialize'],
    ] as const) {
      for (let at = 1; at < text.length; at++) {
        readPhpSession(text.slice(0, at), handler);
        for (const other of ['0', ';', '{', 'O', '\xff'])
          expect(() => readPhpSession(text.slice(0, at) + other + text.slice(at + 1), handler)).not.toThrow();
      }
      if (handler === 'php_serialize') expect(readPhpSession(text.slice(0, -1), handler)).toBeUndefined();
    }
  });

  it.each([
    ['a length that lies', 'id|s:9:"u";'],
    ['a length that is none', 'id|s:x:"u";'],
    ['a huge length', 'id|s:99999999999:"u";'],
    ['a huge array', 'id|a:9999999:{i:0;i:0;'],
    ['a number that is none', 'id|i:1e9;'],
    ['a boolean that is none', 'id|b:2;'],
    ['a float that is none', 'id|d:;'],
    ['the old spelling of strings', 'id|S:1:"u";'],
    ['an enum', 'id|E:11:"Suit:Hearts";'],
    ['a class with a serializer of its own', 'id|C:1:"A":1:{x}'],
    ['text', 'hello'],
    ['JSON', '{"id":"u"}'],
  ])('%s is no session', (_what, text) => {
    expect(readPhpSession(text, 'php')).toBeUndefined();
    expect(readPhpSession(text.slice(3), 'php_serialize')).toBeUndefined();
  });
});
