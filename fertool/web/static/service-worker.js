// Serves the app from the device's own copy. FILES and VERSION come from fertool.

const VERSION = '{{ version }}';
const FILES = {{ files }};
// One host may have several apps, each in a folder of its own.
const OWN = `fertool ${self.registration.scope} `;
const CACHE = OWN + VERSION;

self.addEventListener('install', (event) => {
  event.waitUntil(store());
});

self.addEventListener('activate', (event) => {
  event.waitUntil(removeOthers());
});

self.addEventListener('fetch', (event) => {
  if (event.request.method === 'GET') event.respondWith(answer(event.request));
});

async function store() {
  const cache = await caches.open(CACHE);
  // Past the browser's own cache, which may hold files of the version before.
  await cache.addAll(FILES.map((file) => new Request(file, { cache: 'reload' })));
  await self.skipWaiting();
}

async function removeOthers() {
  for (const name of await caches.keys()) {
    if (name.startsWith(OWN) && name !== CACHE) await caches.delete(name);
  }
  await self.clients.claim();
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(request, { ignoreSearch: true })) ?? fetch(request);
}
