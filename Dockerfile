# The bridge as a service. Nothing is written inside: it runs with a read-only root file system, as a user without rights.

# No package has a part for one machine only: what is made on one platform serves all.
FROM --platform=$BUILDPLATFORM node:22-bookworm-slim AS packages
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund

FROM packages AS build
COPY tsconfig.json tsconfig.build.json ./
COPY scripts ./scripts
COPY src ./src
RUN npm run build

# The legacy app of the demo (docker-compose.yml): koa-session on Redis.
FROM build AS legacy
USER node
CMD ["node", "--import", "tsx", "scripts/lib/legacy-main.ts"]

FROM --platform=$BUILDPLATFORM node:22-bookworm-slim AS production
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --no-audit --no-fund

FROM node:22-bookworm-slim AS bridge
ENV NODE_ENV=production
WORKDIR /app
COPY --from=production /app ./
COPY --from=build /src/dist ./dist
RUN chmod +x dist/cli/main.js && ln -s /app/dist/cli/main.js /usr/local/bin/crossfade && install -d -o node -g node /state
USER node
EXPOSE 8787 8788
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:8788/healthz').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["crossfade"]
CMD ["serve", "--config", "/etc/crossfade/crossfade.yaml"]
