import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Paths of a certificate and its key. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** A certificate authority of a test. */
export interface Authority {
  readonly directory: string;
  readonly caFile: string;
  readonly ca: string;
  /** `names`: as in subjectAltName, `DNS:localhost,IP:127.0.0.1`. `days`: negative for one that has expired. */
  issue(names: string, days?: number): Certificate;
  remove(): void;
}

export function createAuthority(): Authority {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-ca-'));
  const at = (name: string) => join(directory, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-days',
    '30',
    '-subj',
    '/CN=test ca',
    '-addext',
    'basicConstraints=critical,CA:TRUE',
  );
  let count = 0;
  return {
    directory,
    caFile: at('ca.pem'),
    ca: readFileSync(at('ca.pem'), 'utf8'),
    issue(names, days = 30) {
      count += 1;
      const [cert, own, request, extensions] = ['pem', 'key', 'csr', 'ext'].map((end) => at(`${count}.${end}`)) as [string, string, string, string];
      writeFileSync(extensions, `subjectAltName=${names}`);
      openssl('req', ...key, '-keyout', own, '-out', request, '-subj', '/CN=test');
      openssl(
        'x509',
        '-req',
        '-in',
        request,
        '-CA',
        at('ca.pem'),
        '-CAkey',
        at('ca.key'),
        '-CAcreateserial',
        '-days',
        String(days),
        '-extfile',
        extensions,
        '-out',
        cert,
      );
      return { cert, key: own };
    },
    remove: () => rmSync(directory, { recursive: true, force: true }),
  };
}

/** Arguments of a server that speaks TLS with this certificate, to clients and to other servers. */
export function tlsArgs({ cert, key }: Certificate, caFile: string): string[] {
  return ['--tls-cert-file', cert, '--tls-key-file', key, '--tls-ca-cert-file', caFile, '--tls-auth-clients', 'no', '--tls-replication', 'yes'];
}
