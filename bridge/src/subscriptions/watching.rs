//! Subscriptions and the watch lists that narrow them: which may be used by whom, and which may go.

use ryggrad_bridge_core::access::{Caller, Sight};
use ryggrad_bridge_core::subscription::{Fault, Subscription};
use uuid::Uuid;

use super::{ChangeError, Subscriptions};
use crate::watch_lists::WatchListError;

impl Subscriptions {
    /// A list is used by whoever made it alone, and only for types all of whose keys are of its domain.
    pub(super) fn check_watch_list(&self, maker: Caller, list: Option<Uuid>, types: &[String]) -> Result<(), ChangeError> {
        let Some(list) = list else { return Ok(()) };
        let refuse = |detail: String| Err(ChangeError::Invalid(vec![Fault::new("/watch_list", detail)]));
        let Some(found) = self.watch_lists.get(Sight::Of(maker), list).filter(|found| found.caller() == maker) else {
            return refuse("no watch list of that id was made by whoever the subscription is for".to_owned());
        };
        let meant = types.iter().flat_map(|pattern| self.context.catalogue.matching(pattern));
        match meant.into_iter().find(|event| event.key_domain() != Some(found.domain)) {
            Some(other) => refuse(format!(
                "holds keys of the kind {}, and {} has others: leave that type to a subscription of its own",
                found.domain.name(),
                other.ce_type
            )),
            None => Ok(()),
        }
    }

    /// Whether it has no watch list, or all of that one's keys are known. Without them it would pass
    /// by what it wants, for good.
    pub(super) fn knows_keys_of(&self, subscription: &Subscription) -> bool {
        subscription.watch_list.is_none_or(|list| self.watch_lists.is_whole(list))
    }

    /// Deletes a watch list unless a subscription uses it; whether it did.
    pub async fn delete_watch_list(&self, list: Uuid) -> Result<bool, WatchListError> {
        // Until it is gone nobody comes to use it.
        let _one = self.changing.lock().await;
        if self.known.read().await.values().any(|subscription| subscription.watch_list == Some(list)) {
            return Ok(false);
        }
        self.watch_lists.delete(list).await.map(|()| true)
    }
}
