#!/bin/sh
# Makes what nobody else may know, once; what is there stays.
set -eu
umask 077
cd /state

crossfade init . --issuer http://localhost:8080 >/dev/null
# The configuration and the flags are files beside this one.
rm -f crossfade.yaml flags.json

random() { node -e 'process.stdout.write(require("node:crypto").randomBytes(24).toString("hex"))'; }
sha256() { node -e 'process.stdout.write(require("node:crypto").createHash("sha256").update(require("node:fs").readFileSync(process.argv[1])).digest("hex"))' "$1"; }

[ -s session-secrets ] || random >session-secrets
for user in bridge records legacy; do
  [ -s "redis-$user" ] || random >"redis-$user"
done

# Redis gets the hashes only; it is another user of this volume.
{
  grep '^user ' /etc/redis/users.acl
  echo 'user health on nopass resetchannels -@all +ping'
  echo 'user legacy on >PASSWORD ~sess:* resetchannels -@all +@connection -@dangerous +get +set +del +info'
} | while read -r _ user rules; do
  case $rules in
    *'>PASSWORD'*) echo "user $user $rules" | sed "s/>PASSWORD/#$(sha256 "redis-$user")/" ;;
    *) echo "user $user $rules" ;;
  esac
done >users.acl.new
# A file that lacks its first line would leave the default user without a password.
grep -q '^user default off$' users.acl.new && [ "$(grep -c '^user ' users.acl.new)" = 5 ] || exit 1
chmod 755 . && chmod 644 users.acl.new && mv users.acl.new users.acl
