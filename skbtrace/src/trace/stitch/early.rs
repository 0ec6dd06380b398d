//! Packets that are reported before they end, since memory should hold no more.

use super::Stitcher;
use crate::trace::open::Open;
use crate::trace::outcome::Closing;
use crate::trace::packet::Packet;

impl Stitcher {
    /// To be called now and then with the time of CLOCK_MONOTONIC, when every event of before has been pushed; where some wait to
    /// be read, [`Stitcher::note_losses`] is. When half of the packets that memory should hold are
    /// open, those that have been idle for long are reported as waiting. Again at once while [`Stitcher::has_taken`] says so.
    pub fn tick(&mut self, now_ns: u64, sink: &mut dyn FnMut(Packet)) {
        self.note_losses(now_ns);
        self.close_taken(now_ns, sink);
        if self.has_taken(now_ns) {
            return;
        }
        if self.by_id.len() <= self.options.max_open / 2 {
            return;
        }
        let horizon = now_ns.saturating_sub(self.options.idle_ns);
        let idle = self.by_id.values().filter(|key| self.open.get(*key).is_none_or(|open| open.last_ns() <= horizon));
        self.report_early(idle.copied().collect(), now_ns, sink);
    }

    /// Too many are open: the quarter that has been idle longest goes.
    pub(super) fn evict(&mut self, now_ns: u64, sink: &mut dyn FnMut(Packet)) {
        let mut idle: Vec<(u64, u64)> =
            self.by_id.values().map(|key| (self.open.get(key).map_or(0, Open::last_ns), *key)).collect();
        let quarter = idle.len() / 4;
        idle.select_nth_unstable(quarter);
        let keys = idle[..=quarter].iter().map(|(_, key)| *key).collect();
        self.report_early(keys, now_ns, sink);
    }

    fn report_early(&mut self, mut keys: Vec<u64>, now_ns: u64, sink: &mut dyn FnMut(Packet)) {
        keys.sort_unstable();
        let lossy = self.summary.losses.may_hide_events();
        for key in keys {
            let Some(id) = self.open.get(&key).map(|open| open.kernel_id) else { continue };
            self.evicted.push_back(id);
            self.evicted_ids.insert(id);
            self.close(key, Closing::RunOver { lossy, now_ns }, sink);
        }
        while self.evicted.len() > self.options.max_open.saturating_mul(4) {
            if let Some(id) = self.evicted.pop_front() {
                self.evicted_ids.remove(&id);
            }
        }
    }
}
