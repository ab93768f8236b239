//! What a sequence sees of the cache.

use pie_words::Slot;
use std::ops::Range;

/// The slots that a sequence sees, in the order of their positions: a document's first ones, and those of a branch that stands
/// behind them. They lie where the session's table keeps them.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    front: &'a [Slot],
    behind: &'a [Slot],
    /// All slots are below this.
    bound: usize,
}

impl<'a> View<'a> {
    /// Slots of a table whose group has `capacity` of them, so that they need not be looked at one by one before each pass.
    pub fn of_table([front, behind]: [&'a [Slot]; 2], capacity: usize) -> Self {
        let view = Self { front, behind, bound: capacity };
        debug_assert!(
            view.slots().all(|slot| slot.usize() < capacity),
            "K1: a table holds slots of its group"
        );
        view
    }

    /// How many slots.
    pub fn len(&self) -> usize {
        self.front.len() + self.behind.len()
    }

    /// Whether it shows nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A number that is above all slots.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// The document's slots, and the branch's.
    pub fn pieces(&self) -> [&'a [Slot]; 2] {
        [self.front, self.behind]
    }

    /// All slots in order.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + 'a {
        self.pieces().into_iter().flatten().copied()
    }

    /// The slots of some positions. Where they lie in both pieces they are put together in `joined`.
    #[inline(always)]
    pub(crate) fn part<'b>(&self, positions: Range<usize>, joined: &'b mut Vec<Slot>) -> &'b [Slot]
    where
        'a: 'b,
    {
        let (front, behind, join) = (self.front, self.behind, self.front.len());
        if positions.end <= join {
            &front[positions]
        } else if positions.start >= join {
            &behind[positions.start - join..positions.end - join]
        } else {
            joined.clear();
            joined.extend_from_slice(&front[positions.start..]);
            joined.extend_from_slice(&behind[..positions.end - join]);
            joined
        }
    }
}

impl<'a> From<&'a [Slot]> for View<'a> {
    /// Any slots: their bound is looked for.
    fn from(slots: &'a [Slot]) -> Self {
        let bound = slots.iter().map(|slot| slot.usize() + 1).max().unwrap_or(0);
        Self { front: slots, behind: &[], bound }
    }
}
