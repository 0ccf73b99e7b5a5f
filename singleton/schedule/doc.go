// Package schedule reads cron specs and says at which instants they fall due.
//
//	s, err := schedule.Parse("CRON_TZ=Europe/Berlin 30 2 * * MON-FRI", "UTC")
//	...
//	slot, ok := s.Next(time.Now())
//
// # Specs
//
// Five fields, separated by blanks, or six, of which the first is the second (with five it is 0):
//
//	second        0-59
//	minute        0-59
//	hour          0-23
//	day of month  1-31, or L for the last day of the month
//	month         1-12 or JAN-DEC
//	day of week   0-7 or SUN-SAT; 0 and 7 are Sunday
//
// A field is a list, separated by commas, of
//
//   - ?     every value
//     5        a value
//     1-5      a range, whose end is not before its start
//     */15     every 15th value from the least on
//     20-40/5  every 5th value of a range
//     20/5     every 5th value from 20 on
//
// Names may be written in any case. Where both the day of month and the day of week are restricted, a day that matches
// either is meant; a field that is or holds a plain * or ? does not restrict.
//
// In place of fields stands one of @yearly (or @annually), @monthly, @weekly, @daily (or @midnight), @hourly, and
// @every D, where D is a duration of whole seconds such as 90s or 1h30m: its slots are the multiples of D since the Unix
// epoch, 1 January 1970 in UTC, and so are the same on every machine and after every restart.
//
// TZ=ZONE or CRON_TZ=ZONE and a blank before all that name a zone of the tz database, in place of the one that the program
// names. Local is refused: it is another zone on another machine.
//
// Not supported: W, #, L in other fields, ranges that wrap (FRI-MON), years, @reboot.
//
// # Daylight saving
//
// A spec falls due when the local clock first reaches or passes one of its times. So a time that the clock skips falls due
// once, at the very end of the gap, together with all others in that gap; and a time that the clock shows twice falls due
// once, the first time.
//
// A spec whose hour field admits every hour is about elapsed time: "*/15 * * * *" falls due every quarter of an hour that
// really passes. It matches whenever the clock shows one of its times, twice if it shows it twice, and not if it skips it.
//
// # What it promises
//
//   - [Schedule.Next] depends on nothing but the spec, the tz database and its argument; its result is later than the
//     argument, in whole seconds, and no slot lies between.
//   - A spec that can never fall due, such as 30 February, is refused.
//   - Any text gives a schedule or an INVALID *lease.Error that names the field and says what would do.
//
// # What it does not promise
//
// Machines whose tz databases differ disagree about the slots of a zone whose rules have changed. There is nothing after
// the year 9999. The zones come from the machine; a program that may run where there are none imports time/tzdata.
//
// A [Schedule] reads no clock and does not change: it is safe for concurrent use.
package schedule
