// Keep a hosted page on the device, so that it opens without a network.

/** Register the service worker, which is there beside a page that came from a host. */
export async function keepOffline(settings) {
  if (!settings.service_worker || !navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register('./service-worker.js');
  } catch (error) {
    // The page works without; only a later visit needs the network.
    console.info('not kept for use without a network:', error.message);
  }
}
