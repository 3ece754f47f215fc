// Keeps the playground in the browser: from the second visit on it needs no network. FILES and VERSION are put in by the build.
/* global FILES, VERSION */
const NAME = `nasdsl-${VERSION}`;
const known = new Set(FILES.map(name => new URL(name, self.registration.scope).href));

self.addEventListener("install", event => event.waitUntil(caches.open(NAME).then(cache => cache.addAll([...known]))));

self.addEventListener("activate", event => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith("nasdsl-") && name !== NAME) await caches.delete(name);
})()));

self.addEventListener("fetch", event => {
  const url = new URL(event.request.url);
  url.search = url.hash = "";
  if (url.href === self.registration.scope) url.pathname += "index.html";
  if (event.request.method !== "GET" || !known.has(url.href)) return;
  event.respondWith(caches.open(NAME).then(cache => cache.match(url.href)).then(found => found ?? fetch(event.request)));
});
